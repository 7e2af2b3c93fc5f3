"""The process, with Kafka and the rewards worker: a task's score is the reward of its answer."""

from __future__ import annotations

import json
from pathlib import Path
import re
import signal
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from services.rewards import spec
from services.rollouts.settings import Settings
from tailrace import events, topics
from tailrace.settings import load
from tailrace.stream import Decoder, read_all
from tailrace.tasks import benchmark
from tests.borders.test_imports import ROOT
from tests.gateway.fakevllm import Served, wait_until
from tests.rewards.worker import Bench, Worker
from tests.rollouts.fakeengine import FakeEngine

FOLDER = ROOT / "examples/tasks"


def test_the_examples_settings_load() -> None:
    settings = load(Settings, "rollouts", {}, FOLDER / "tailrace.toml")
    settings.check()
    names = [one.name for one in benchmark.load_all(settings.tasks)]
    assert names == ["arithmetic", "format", "short"]
    assert "task" in spec.load(FOLDER / "rewards.toml").metrics


def test_the_page_shows_the_examples_and_settings_that_are_there() -> None:
    page = (ROOT / "docs/rollouts.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert (FOLDER / "rewards.toml").read_text().endswith(blocks[1])
    shown = tomllib.loads(blocks[0])["rollouts"]
    defaults = Settings(tasks=tuple(Path(name) for name in shown["tasks"]))
    for key, value in shown.items():
        assert key == "tasks" or getattr(defaults, key) == value


WRONG = {
    "": "rollouts.tasks: name the folders",
    'tasks = ["none"]': "none/verifier.toml",
    'tasks = ["a"]\nshare = 0': "rollouts.share: must be between",
    'tasks = ["a"]\ngroup_size = 1': "rollouts.group_size",
    'tasks = ["a"]\ntoken_ms = 0': "rollouts.token_ms",
    'tasks = ["a"]\npriority = 0': r"rollouts: .*>= 1.*\$\.priority",
    'tasks = ["a"]\npriority = -10': r"rollouts: .*>= 1.*\$\.priority",
    'tasks = ["a"]\ntenant = "A"': "rollouts.tenant",
    'tasks = ["a"]\nengines = {}': "rollouts.engines: name an engine",
    'tasks = ["a"]\nengines = { e = "127.0.0.1" }': "rollouts.engines.e",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_setting_names_its_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"[rollouts]\n{text}\n")
    with pytest.raises(ValueError, match=WRONG[text]):
        settings = load(Settings, "rollouts", {}, file)
        settings.check()
        benchmark.load_all(settings.tasks)


def read(bench: Bench, topic: topics.Topic) -> list[Any]:
    decoder = Decoder(bench.log, bench.wire, prefix=bench.prefix)
    name = topics.named(topic, bench.prefix)
    return [decoder.decode(record) for record in read_all(bench.log, name)]


@pytest.mark.kafka
def test_a_score_is_a_reward_once_whoever_is_killed(
    broker: Any, prefix: str, tmp_path: Path
) -> None:
    engine = FakeEngine()
    engine.texts = [str(number) for number in range(30)]
    served = Served(engine.app)
    bench = Bench(broker.bootstrap, prefix)
    worker = Worker(tmp_path, broker.bootstrap, prefix, spec=(FOLDER / "rewards.toml").read_text())
    with (tmp_path / "settings.toml").open("a") as file:
        file.write(
            f'[rollouts]\ntasks = ["{FOLDER}/arithmetic"]\ngroup_size = 4\nmax_num_seqs = 8\n'
            f'engines = {{ engine-0 = "{served.url}" }}\npoll_s = 0.02\n'
        )
    worker.start()
    command = [sys.executable, "-m", "services.rollouts"]
    command += ["--settings", str(tmp_path / "settings.toml")]
    rollouts = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_until(lambda: len(read(bench, topics.FEEDBACK)) >= 40, "ten groups", 40.0)
        rollouts.kill()
        rollouts.wait()
        rollouts = subprocess.Popen(command, cwd=ROOT)
        before = len(read(bench, topics.FEEDBACK))
        wait_until(lambda: len(read(bench, topics.FEEDBACK)) >= before + 40, "more", 40.0)
        rollouts.send_signal(signal.SIGTERM)
        assert rollouts.wait(20) == 0
        said: dict[str, events.Feedback] = {}
        for one in read(bench, topics.FEEDBACK):
            assert said.setdefault(one.feedback_id, one) == one
        places = bench.feedback_places()
        bench.await_true(lambda: bench.receipts().keys() == places, worker)
        outcomes = [outcome for found in bench.outcomes().values() for outcome in found]
        trajectories = list(bench.trajectories().values())
    finally:
        rollouts.kill()
        rollouts.wait()
        worker.kill()
        served.stop()
        bench.producer.close()
        bench.log.close()
    # Every score is in the reward of its answer, once; what came twice was one id and one content.
    assert outcomes.count("joined") == len(said) == len(trajectories)
    assert {*outcomes} <= {"joined", "duplicate"}
    groups: dict[str, list[events.Trajectory]] = {}
    for one in trajectories:
        assert one.learn is True and one.untrainable is None and one.task == "arithmetic"
        (feedback_id,) = one.feedback_ids
        number = said[feedback_id].number
        assert number in (0.0, 1.0) and one.reward == 2 * number - 1
        assert one.content is not None and one.content.message is not None
        groups.setdefault(str(one.group_id), []).append(one)
    assert all(len(members) == one.group_size == 4 for members in groups.values())
    assert json.loads(trajectories[0].content.messages)[0]["content"].startswith("What is")
