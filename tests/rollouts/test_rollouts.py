"""The shell: what lies on the log, what is dropped and counted, and who goes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
import pytest

from tailrace import ids, packing, topics
from tailrace.errors import LogError, SettingsError
from tailrace.log.memory import MemoryLog
from tests.gateway.fakevllm import wait_until
from tests.rollouts.fakeengine import FakeEngine
from tests.rollouts.scene import line, write
from tests.rollouts.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, url: str) -> Stage:
    return Stage(tmp_path, MemoryLog(), url, [write(tmp_path / "sums", [line(3)])])


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tailrace_rollouts_{name}", labels) or 0.0


def test_a_group_lies_on_the_log_as_the_gateway_and_a_grader_would_have_it(stage: Stage) -> None:
    with stage.running() as rollouts:
        wait_until(lambda: len(stage.records(topics.FEEDBACK)) >= 6, "three groups")
        assert rollouts.ready() is None
    assert not stage.errors
    prompts, outputs, said = (
        {one.interaction_id: one for one in stage.records(topic)}
        for topic in (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK)
    )
    assert prompts.keys() == outputs.keys() == said.keys()
    for group_id, members in stage.groups().items():
        assert len(members) == 2 and {m.session_id for m in members} == {group_id}
        assert {m.group_size for m in members} == {2}
        assert len({m.interaction_id for m in members}) == 2
    interaction, prompt = next(iter(prompts.items()))
    assert ids.session_of(interaction) == prompt.session_id
    assert ids.is_of_rollouts(interaction)
    assert prompt.tenant == "default" and prompt.learn is True and prompt.task == "sums"
    assert prompt.sampling == {"max_tokens": "8", "n": "1"}
    assert prompt.logprobs_mode == "processed_logprobs" and prompt.tags == {"task_id": "t3"}
    assert packing.unpack_ids(prompt.content.prompt_token_ids) == [1, 5, 6]
    assert json.loads(prompt.content.messages)[0]["content"] == "What is 3 + 1?"
    output = outputs[interaction]
    assert (output.engine, output.finish_reason, output.untrainable) == ("engine-0", "stop", None)
    assert [(s.version, s.start, s.end) for s in output.weight_versions] == [(7, 0, 3)]
    assert packing.unpack_ids(output.content.token_ids) == [11, 12, 2]
    assert packing.unpack_logprobs(output.content.logprobs) == [-0.5] * 3
    for name, feedback in said.items():
        answer = json.loads(outputs[name].content.message)["content"]
        assert (feedback.kind, feedback.metric, feedback.source) == ("number", "task", "grader")
        assert feedback.grader == "sums" and feedback.number == float(answer == "4")


def test_it_keeps_to_its_share_and_sends_what_it_says(stage: Stage, engine: FakeEngine) -> None:
    engine.live = 3
    with stage.running():
        wait_until(lambda: len(stage.records(topics.FEEDBACK)) >= 20, "ten groups")
    assert engine.most_at_once <= 2  # half of the five slots that are left
    params = {"n": 1, "max_tokens": 8, "logprobs": 0}
    assert engine.asked[0] == {
        "token_ids": [1, 5, 6],
        "sampling_params": params,
        "output_mode": "text",
        "stream": False,
    }


def test_temperature_and_priority_are_sent_and_one_is_recorded(
    tmp_path: Path, engine: FakeEngine, url: str
) -> None:
    plain = {"id": "p", "prompt": "3 + 1 =", "expected": 4}
    tasks = [write(tmp_path / "sums", [plain])]
    stage = Stage(tmp_path, MemoryLog(), url, tasks, temperature=0.5, priority=10)
    with stage.running():
        wait_until(lambda: stage.records(topics.FEEDBACK), "a group")
    assert engine.asked[0]["sampling_params"]["temperature"] == 0.5
    assert engine.asked[0]["priority"] == 10
    prompt = stage.records(topics.PROMPTS)[0]
    assert prompt.sampling["temperature"] == "0.5"
    assert json.loads(prompt.content.messages) == "3 + 1 ="
    assert packing.unpack_ids(prompt.content.prompt_token_ids) == [1, 5, 7]


def test_an_engine_that_is_full_gets_nothing(stage: Stage, engine: FakeEngine) -> None:
    engine.live = 8
    with stage.running() as rollouts:
        wait_until(lambda: rollouts.ready() is None, "a reading")
        assert not engine.asked
        engine.live = 0
        wait_until(lambda: engine.asked, "an ask")


def test_ours_leave_when_live_requests_wait(stage: Stage, engine: FakeEngine) -> None:
    engine.gate.clear()
    yielded = counted("yielded_total", engine="engine-0")
    with stage.running():
        wait_until(lambda: engine.at_once == 4, "four of ours")
        engine.live, engine.waiting = 4, 4
        wait_until(lambda: engine.left == 4, "that they left")
        assert not stage.records(topics.PROMPTS)
        engine.live = engine.waiting = 0
        engine.gate.set()
        wait_until(lambda: len(stage.groups()) >= 2, "groups")
    assert counted("yielded_total", engine="engine-0") - yielded == 4
    assert all(len(members) == 2 for members in stage.groups().values())


def test_an_answer_that_fails_is_asked_again(stage: Stage, engine: FakeEngine) -> None:
    engine.statuses = [500, 503]
    before = counted("retries_total", engine="engine-0", reason="engine_error")
    with stage.running():
        wait_until(lambda: len(stage.groups()) >= 2, "groups")
    assert counted("retries_total", engine="engine-0", reason="engine_error") - before == 2


def test_many_that_fail_together_are_each_asked_again_once(
    tmp_path: Path, engine: FakeEngine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [write(tmp_path / "sums", [line(3)])]
    stage = Stage(tmp_path, MemoryLog(), url, tasks, share=1.0, max_num_seqs=32)
    engine.gate.clear()
    engine.statuses = [503] * 32
    with stage.running():
        wait_until(lambda: engine.at_once >= 16 or stage.errors, "the second tries")
        # What is in flight can still be broken off.
        engine.live, engine.waiting = 32, 32
        wait_until(lambda: engine.at_once == 0 or stage.errors, "that they left")
        engine.live = engine.waiting = 0
        engine.gate.set()
        wait_until(lambda: len(stage.groups()) >= 16 or stage.errors, "groups")
    assert not stage.errors
    assert not [record for record in caplog.records if record.name == "asyncio"]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "refused": ({"statuses": [400]}, 'kind = "number"\n'),
    "unknown_version": ({"version": "default"}, 'kind = "number"\n'),
    "verifier_too_long": ({"texts": ["4" * 30_000]}, 'kind = "number"\n'),
    "verifier_raised": ({}, 'kind = "function"\n'),
}


@pytest.mark.parametrize("reason", CASES)
def test_a_group_without_a_score_or_a_version_is_dropped_whole(
    tmp_path: Path, engine: FakeEngine, url: str, reason: str
) -> None:
    given, verifier = CASES[reason]
    for name, value in given.items():
        setattr(engine, name, value)
    folder = tmp_path / "drops"
    folder.mkdir()
    (folder / "verifier.py").write_text("def reward(completions, **more):\n    raise KeyError\n")
    stage = Stage(tmp_path, MemoryLog(), url, [write(folder, [line(3)], verifier)])
    before = counted("dropped_groups_total", benchmark="drops", reason=reason)
    with stage.running():
        wait_until(
            lambda: counted("dropped_groups_total", benchmark="drops", reason=reason) > before,
            "a drop",
        )
        if reason == "refused":  # it goes on with the next one
            wait_until(lambda: stage.records(topics.FEEDBACK), "a group")
    assert all(len(members) == 2 for members in stage.groups().values())
    assert reason == "refused" or not stage.records(topics.PROMPTS)


def test_a_log_that_fails_ends_it(tmp_path: Path, url: str) -> None:
    class Deaf(MemoryLog):
        def _partitions(self, topic: str) -> Any:
            if topic == "outputs":
                raise LogError("outputs: no broker")
            return super()._partitions(topic)

    stage = Stage(tmp_path, Deaf(), url, [write(tmp_path / "sums", [line(3)])])
    with stage.running():
        wait_until(lambda: stage.errors, "its end")
    assert isinstance(stage.errors[0], LogError)


def test_two_processes_do_not_share_a_book(stage: Stage) -> None:
    with stage.running():
        with pytest.raises(SettingsError, match="another process"):
            with stage.running():
                pass


def test_an_engine_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    tasks = [write(tmp_path / "sums", [line(3)])]
    stage = Stage(tmp_path, MemoryLog(), "http://127.0.0.1:9", tasks)
    before = counted("unready_total", engine="engine-0")
    with stage.running() as rollouts:
        wait_until(lambda: counted("unready_total", engine="engine-0") > before, "a look")
        assert rollouts.ready() == "waiting for engine-0"
    assert not stage.errors
