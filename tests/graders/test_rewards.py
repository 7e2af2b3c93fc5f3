"""A grader and the rewards worker on one broker: its word counts, its silence has a reason."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from tailrace import events
from tests.gateway.fakevllm import wait_until
from tests.graders.scene import write_function
from tests.rewards.worker import CHECKOUT, PARTITIONS, Bench, Worker

pytestmark = pytest.mark.kafka

SPEC = """
wait_s = 1
orphan_s = 10
combine = "sum"
[metrics.thumbs]
true = 1.0
[metrics.polite]
weight = 0.5
wait_s = 2
"""
CODE = """
def reward(completions, **kwargs):
    return [0.5 for _ in completions]
"""


def newest(bench: Bench, interaction: str, grader: bool) -> events.Trajectory:
    """The newest trajectory, of those with (or without) the grader's word once there is one."""

    def wanted() -> list[events.Trajectory]:
        return [
            t
            for t in bench.trajectories().values()
            if t.interaction_id == interaction
            and any("!polite.0." in name for name in t.feedback_ids) == grader
        ]

    wait_until(wanted, "the trajectory", 40.0)
    return wanted()[-1]


def said(bench: Bench) -> list[str]:
    """Outcomes of all that the grader said."""
    outcomes = bench.outcomes().items()
    return [outcome for token, found in outcomes if "polite" in token for outcome in found]


def begin_again(bench: Bench) -> None:
    """Take the grader back to before its first answer, as after a kill before its commit."""
    consumer = bench.log.consumer(group=f"{bench.prefix}tailrace-graders-polite")
    for topic in ("outputs", "prompts"):
        consumer.commit(bench.prefix + topic, {p: 0 for p in range(PARTITIONS)})
    consumer.close()


def test_its_word_counts_and_without_it_the_thumb_alone(
    broker: Any, prefix: str, tmp_path: Path
) -> None:
    bench = Bench(broker.bootstrap, prefix)
    write_function(tmp_path, CODE)
    (tmp_path / "graders.toml").write_text(
        '[functions.polite]\nfile = "rewards.py"\nfunction = "reward"\n'
    )
    worker = Worker(tmp_path, broker.bootstrap, prefix, spec=SPEC)
    settings = tmp_path / "settings.toml"
    with settings.open("a") as file:
        file.write('[graders]\nspec = "graders.toml"\ncommit_s = 0.1\n')
    worker.start()
    command = [sys.executable, "-m", "services.graders", "--settings", str(settings)]
    grader = subprocess.Popen(command, cwd=CHECKOUT)
    try:
        with_grader = bench.turn("default:a", ("t", True))
        bench.producer.flush()
        first = newest(bench, with_grader, True)
        grader.terminate()
        assert grader.wait(20) == 0
        without = bench.turn("default:b", ("t", True))
        bench.producer.flush()
        second = newest(bench, without, False)
        begin_again(bench)
        grader = subprocess.Popen(command, cwd=CHECKOUT)
        wait_until(lambda: len(said(bench)) >= 3, "every word again", 40.0)
    finally:
        grader.kill()
        grader.wait()
        outcomes = said(bench)
        worker.kill()
        bench.producer.close()
        bench.log.close()
    assert first.reward == 1.25
    assert {c.name: c.value for c in first.components} == {"thumbs": 1.0, "polite": 0.5}
    assert second.reward == 1.0
    assert second.closed_log_time_ms is not None and second.output_log_time_ms is not None
    assert second.closed_log_time_ms - second.output_log_time_ms >= 2000
    polite = next(c for c in second.components if c.name == "polite")
    assert (polite.value, polite.reason) == (None, "no_feedback")
    # The first answer's word came twice; the second's, after its wait, corrects.
    assert outcomes.count("duplicate") == 1
    assert {*outcomes} <= {"duplicate", "joined", "corrected"}
