"""Logged interactions under another spec: the difference, exactly, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
import random

from msgspec.structs import replace
import pytest

from services.rewards import trial
from services.rewards.offline import run
from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tailrace import events, topics
from tailrace.log.memory import MemoryLog
from tests.copies.past import decide, lay
from tests.rewards.history import KINDS, START_MS, History, read_in_order
from tests.rewards.test_join import SPEC, Story
from tests.rewards.test_join_properties import SPECS, make

OTHER = replace(SPEC, metrics={"thumbs": Metric(true=1.0, false=-0.5), "done": Metric(final=True)})


def reads(history: History) -> dict[str, list[tuple[object, events.Struct]]]:
    return {
        kind: [(item.record, item.event) for item in history.logs[kind] if item is not None]
        for kind in KINDS
    }


def logged(history: History, spec: Spec) -> MemoryLog:
    """The history on a log, with what came of it under a spec."""
    log = lay(history)
    decide(log, "", spec)
    return log


def story() -> Story:
    """Eight turns, every other one bad, and one that is said to be bad too late."""
    told = Story()
    for number in range(8):
        told.feedback(told.turn(), "a", boolean=number % 2 == 0)
        told.run(1)
    silent = told.turn()
    told.run(10)
    told.feedback(silent, "late", boolean=False)
    told.run(30)
    return told


def test_the_same_spec_makes_no_difference() -> None:
    log = logged(story(), SPEC)
    ends = {topic.name: log.ends(topic.name) for topic in topics.TOPICS}
    found = trial.tried(log, SPEC, START_MS, START_MS + 10**9)
    assert (found.answers, found.rewarded, found.difference.value) == (9, 9, 0.0)
    assert (found.changed.value, found.outcomes, found.largest) == (0.0, {}, [])
    assert {topic.name: log.ends(topic.name) for topic in topics.TOPICS} == ends


def test_one_worth_changed_makes_its_difference() -> None:
    log = logged(story(), SPEC)
    found = trial.tried(log, OTHER, START_MS, START_MS + 10**9)
    # Five of nine said no, which is worth half as much now.
    assert found.difference.value == pytest.approx(5 * 0.5 / 9)
    assert found.difference.low < found.difference.value < found.difference.high  # type: ignore[operator]
    assert found.changed.value == pytest.approx(5 / 9)
    assert found.terms["thumbs"] == (pytest.approx(-1 / 9), pytest.approx(1.5 / 9))
    assert {(c.logged, c.tried) for c in found.largest} == {(-1.0, -0.5)}
    dropped = trial.tried(log, replace(SPEC, late="drop"), START_MS, START_MS + 10**9)
    assert (dropped.lost, dropped.outcomes) == (1, {"corrected -> late": 1})


def test_only_the_stretch_counts_and_what_is_open_is_left_out() -> None:
    log = logged(story(), SPEC)
    half = trial.tried(log, SPEC, START_MS + 4000, START_MS + 6000)
    assert (half.answers, half.difference.value) == (2, 0.0)
    slow = trial.tried(log, replace(SPEC, wait_s=3000), START_MS, START_MS + 10**9)
    assert (slow.answers, slow.only_logged, slow.difference.value) == (0, 9, None)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, file = logged(story(), SPEC), tmp_path / "other.toml"
    file.write_text("wait_s = 5\norphan_s = 20\n[metrics.thumbs]\nfalse = -0.5\n[metrics.done]\n")
    since = ["--since", str(START_MS)]
    assert trial.main([str(file), *since, "--json"], log) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["answers"], found["gained"]) == (9, 0)
    assert trial.main([str(file), *since], log) == 0
    said = capsys.readouterr().out
    assert "9 answers, 9 with a reward both ways" in said and "thumbs: -0.1111 -> 0.1667" in said
    file.write_text("wait = 3\n")
    assert trial.main([str(file)], log) == 2
    assert "other.toml:1: wait: unknown key" in capsys.readouterr().err
    file.write_text("wait_s = 3\n")
    assert trial.main([str(file), "--since", "yesterday"], log) == 2
    assert trial.main([str(file)], MemoryLog()) == 1


@pytest.mark.parametrize("seed", range(40))
def test_offline_says_what_a_worker_says(seed: int) -> None:
    spec = SPECS[seed % len(SPECS)]
    history = make(seed, random.Random(seed).randint(5, 90))
    for item in (item for log in history.logs.values() for item in log if item is not None):
        item.refused = False
    result = read_in_order(history, spec).result
    said = type(result)()
    said.add(list(run(spec, 0, 1, reads(history))))  # type: ignore[arg-type]
    assert said == result
