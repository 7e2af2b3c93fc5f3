"""One grader over a log in memory: what it grades, what it skips, where it begins again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.graders import pairing
from services.graders.item import drawn
from services.graders.metrics import PAUSES
from services.graders.spec import Function
from tailrace import events, topics
from tailrace.errors import LogError
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer
from tailrace.topics import named
from tests.graders.byhand import Scene
from tests.graders.scene import PARTITIONS, WIRE


def skipped(reason: str) -> float:
    from services.graders.metrics import SKIPPED

    return SKIPPED.labels("polite", reason)._value.get()


def test_a_grade_becomes_feedback() -> None:
    scene = Scene()
    interaction = scene.room.turn("so", tags={"solution": "2"}, task="sums")
    scene.step()
    item = scene.worker.say(0.75)
    assert (item.question, item.answer) == ("why?", "so")
    assert item.columns == {"solution": "2", "task": "sums", "finish_reason": None}
    scene.step()
    (said,) = scene.room.feedback()
    assert said.feedback_id == f"{interaction}!polite.0.0123456789ab"
    assert (said.interaction_id, said.choice, said.tenant) == (interaction, 0, "default")
    assert (said.kind, said.metric, said.number) == ("number", "polite", 0.75)
    assert (said.source, said.grader) == ("grader", "polite")


def test_each_choice_has_its_own() -> None:
    scene = Scene()
    interaction = scene.room.name()
    scene.room.ask(interaction)
    for choice in (0, 1):
        scene.room.say(interaction, f"a{choice}", choice=choice)
    scene.step()
    scene.worker.say(0.0)
    scene.worker.say(1.0)
    scene.step()
    assert {(f.choice, f.number) for f in scene.room.feedback()} == {(0, 0.0), (1, 1.0)}


def test_an_output_may_come_before_its_prompt() -> None:
    scene = Scene()
    interaction = scene.room.name()
    scene.room.say(interaction)
    scene.step()
    assert not scene.worker.items
    scene.room.ask(interaction)
    scene.step()
    assert [item.interaction_id for item in scene.worker.items] == [interaction]


def test_an_output_whose_prompt_never_comes_is_given_up() -> None:
    scene = Scene()
    scene.room.say(scene.room.name())
    before = skipped("no_prompt")
    scene.step()
    assert scene.grader.lag == 1
    scene.now_ms += pairing.WAIT_MS
    scene.step()
    scene.grader.commit()
    assert skipped("no_prompt") == before + 1
    assert scene.grader.lag == 0


def test_while_too_many_outputs_wait_no_more_are_read_and_none_is_lost(
    log: Log, prefix: str
) -> None:
    scene = Scene(log, prefix)
    held = pairing.Pairing(max_waiting=150)
    scene.start(room=10_000, pairing=held)
    names = [scene.room.name() for _ in range(1000)]
    for name in names:
        scene.room.say(name)
    scene.room.producer.flush()
    lost, paused = skipped("no_prompt"), PAUSES.labels("polite")._value.get()
    most = asked = 0
    until = time.monotonic() + 30
    while scene.grader.lag and time.monotonic() < until:
        if held.load >= 1 or asked:
            for name in names[asked : asked + 10]:
                scene.room.ask(name)
            asked += 10
            scene.room.producer.flush()
        scene.step(1, 0.05)
        scene.grader.commit()
        most = max(most, held.waiting)
        while scene.worker.items:
            scene.worker.say()
    scene.grader.close()
    assert 150 <= most < 150 + 100, "and what one poll brings"
    assert PAUSES.labels("polite")._value.get() > paused + 1
    assert skipped("no_prompt") == lost
    assert set(scene.room.grades()) == set(names)
    assert len(scene.room.feedback()) == len(names)
    assert scene.room.committed("polite") == len(names)


def test_what_is_paused_goes_on_when_what_waits_is_given_up_and_begins_there_after_a_crash() -> (
    None
):
    scene = Scene()
    scene.start(pairing=pairing.Pairing(max_waiting=1))
    scene.room.say(scene.room.name())
    scene.step()
    late = scene.room.turn()
    scene.step()
    scene.grader.commit()
    assert not scene.worker.items and scene.grader.lag == 2
    scene.start(pairing=pairing.Pairing(max_waiting=1))
    scene.step()
    scene.now_ms += pairing.WAIT_MS
    scene.step()
    assert [item.interaction_id for item in scene.worker.items] == [late]


SKIPS: dict[str, dict[str, Any]] = {
    "no_consent": {"prompt": {"learn": None}},
    "error": {"output": {"error": "the engine died"}},
    "no_content": {"output": {"content": None}},
    "undecodable": {"output": {"content": events.OutputContent(message="{")}},
}


@pytest.mark.parametrize("reason", SKIPS)
def test_what_is_not_graded_has_a_reason(reason: str) -> None:
    scene = Scene()
    before = skipped(reason)
    interaction = scene.room.name()
    scene.room.ask(interaction, **SKIPS[reason].get("prompt", {}))
    scene.room.say(interaction, **SKIPS[reason].get("output", {}))
    scene.step()
    scene.grader.commit()
    assert skipped(reason) == before + 1
    assert not scene.worker.items and scene.grader.lag == 0


def test_poison_is_passed() -> None:
    scene = Scene()
    producer = scene.log.producer()
    values = [b"", b"\xc3\x01nobody", b"\xc3\x01" + b"x" * 100, None, b"{}"]
    for topic in (topics.PROMPTS, topics.OUTPUTS):
        for value in values:
            for partition in range(PARTITIONS):
                producer.append(named(topic), value, partition=partition)
    strange = WIRE.encode(events.Output(interaction_id="nonsense", event_time_ms=1))
    producer.append("outputs", strange, partition=0)
    interaction = scene.room.turn()
    scene.step()
    assert [item.interaction_id for item in scene.worker.items] == [interaction]
    scene.worker.say()
    scene.step()
    assert scene.grader.lag == 0


def test_a_record_in_the_wrong_partition_is_skipped() -> None:
    scene = Scene()
    before = skipped("misplaced")
    interaction = scene.room.turn()
    content = events.OutputContent(message='{"content": "so"}')
    output = events.Output(interaction_id=interaction, event_time_ms=1, content=content)
    writer = Writer(scene.log.producer(), WIRE)
    for partition in range(PARTITIONS):
        writer.write(topics.OUTPUTS, output, partition=partition)
    scene.step()
    assert skipped("misplaced") == before + 1


def test_what_is_too_old_is_passed_over() -> None:
    scene = Scene(max_age_s=10.0)
    before = skipped("too_old")
    scene.room.turn()
    scene.now_ms += 10_001
    young = scene.room.turn()
    scene.step()
    assert [item.interaction_id for item in scene.worker.items] == [young]
    assert skipped("too_old") == before + 1


def test_a_share_is_the_same_answers_each_time() -> None:
    scene = Scene(share=0.5)
    named_so = [scene.room.turn() for _ in range(40)]
    scene.step()
    taken = {item.interaction_id for item in scene.worker.items}
    assert taken == {name for name in named_so if drawn(name, 0, 0.5)}
    assert 8 < len(taken) < 32


def test_it_reads_no_further_than_its_worker_has_room() -> None:
    scene = Scene()
    for _ in range(300):
        scene.room.turn()
    scene.start(room=1)
    scene.step(10)
    given = len(scene.worker.items)
    scene.step(10)
    assert len(scene.worker.items) == given
    assert 0 < given <= 100


def test_nothing_said_and_given_up_are_done_and_write_nothing() -> None:
    scene = Scene()
    for _ in range(2):
        scene.room.turn()
    scene.step()
    scene.worker.say(None)
    scene.worker.say(None, "timeout")
    scene.step()
    assert scene.grader.lag == 0
    assert not scene.room.feedback()


def test_a_group_begins_where_it_left_off_and_a_new_one_at_what_is_young() -> None:
    scene = Scene()
    scene.room.turn()
    scene.now_ms += 3_600_000
    second = scene.room.turn()
    scene.spec = Function(file="x.py", function="reward", metric="polite", max_age_s=60.0)
    scene.start()
    scene.step()
    assert {item.interaction_id for item in scene.worker.items} == {second}


def test_a_crash_of_the_worker_ends_the_grader() -> None:
    scene = Scene()
    scene.worker.answers.crash(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        scene.step()


def test_feedback_that_the_log_refuses_is_not_passed() -> None:
    scene = Scene()
    scene.room.turn()
    scene.step()

    class Refusing(MemoryLog):
        def _partitions(self, topic: str) -> Any:
            raise LogError("no broker")

    scene.grader._writer = Writer(Refusing().producer(), WIRE)
    scene.worker.say()
    with pytest.raises(LogError):
        scene.step()
    assert scene.room.committed("polite") == 0
