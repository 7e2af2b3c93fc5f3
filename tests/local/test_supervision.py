"""Children are started again, ended in order, and never outlive the runner."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import pytest

from services.local import processes
from services.local.guardian import Guardian
from services.local.programs import Program, Report
from services.local.supervisor import backoff_s
from tests.local.until import lives, pids, until

ROOT = Path(__file__).parents[2]
FAMILY = Path(__file__).with_name("family.py")


class Guarded:
    """A guardian of the test's own, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids = folder / "pids"
        self.reports: list[Report] = []
        self.lost = threading.Event()
        self.guardian = Guardian(
            log=folder / "guardian.log",
            mark=str(folder),
            cwd=ROOT,
            on_report=self.reports.append,
            on_lost=self.lost.set,
        )

    def family(self, name: str, depth: int, *flags: str, **fields: object) -> Program:
        return Program(
            name=name,
            argv=[sys.executable, str(FAMILY), str(depth), name, *flags],
            log=str(self.folder / f"{name}.log"),
            environment={"PIDS": str(self.pids)},
            **fields,  # type: ignore[arg-type]
        )

    def run(self, program: Program, count: int) -> list[int]:
        """Start it; the pids of it and its descendants once all live."""
        self.guardian.add(program)
        until(lambda: len(pids(self.pids).get(program.name, [])) == count, program.name)
        return pids(self.pids)[program.name]

    def states(self, name: str) -> list[str]:
        return [report.state for report in self.reports if report.name == name]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.guardian.end()
    assert processes.marked(str(tmp_path)) == []


def test_back_off_doubles_up_to_half_a_minute() -> None:
    assert [backoff_s(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_killed_child_is_started_again_and_said_so(guarded: Guarded) -> None:
    (first,) = guarded.run(guarded.family("drift", 0), 1)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(pids(guarded.pids)["drift"]) == 2, "a second one")
    until(lambda: guarded.states("drift") == ["running", "waiting", "running"], "its reports")
    waiting, running = guarded.reports[-2:]
    assert (waiting.code, waiting.delay_s, waiting.restarts) == (-signal.SIGKILL, 0.5, 0)
    assert "SIGKILL" in waiting.text
    assert running.restarts == 1 and running.pid == pids(guarded.pids)["drift"][1]


def test_what_a_killed_child_left_is_gone_before_it_starts_again(guarded: Guarded) -> None:
    family = guarded.run(guarded.family("engine", 2), 3)
    os.kill(family[0], signal.SIGKILL)
    until(lambda: len(pids(guarded.pids)["engine"]) >= 4, "a second one")
    assert [pid for pid in family if lives(pid)] == []


def test_wrong_settings_are_not_tried_again(guarded: Guarded) -> None:
    guarded.guardian.add(guarded.family("drift", 0, "broken"))
    until(lambda: guarded.states("drift") == ["running", "refused"], "the refusal")


def test_a_command_that_is_not_there_is_said(guarded: Guarded) -> None:
    guarded.guardian.add(
        Program(name="drift", argv=["/no/such/program"], log=str(guarded.folder / "drift.log"))
    )
    until(lambda: guarded.states("drift")[:1] == ["waiting"], "the report")
    assert "No such file" in guarded.reports[0].text


def test_end_takes_whole_families_in_order_and_the_stubborn_too(guarded: Guarded) -> None:
    kafka = guarded.run(guarded.family("kafka", 0, stage=2), 1)
    engine = guarded.run(guarded.family("engine", 2, "stubborn", grace_s=0.5), 3)
    guarded.guardian.end()
    assert [pid for pid in kafka + engine if lives(pid)] == []
    ended = [report.name for report in guarded.reports if report.state == "ended"]
    assert ended == ["engine", "kafka"]
    assert guarded.reports[-1].code == -signal.SIGTERM


def test_an_end_in_a_hurry_waits_for_nobody(guarded: Guarded) -> None:
    kafka = guarded.run(guarded.family("kafka", 0, "stubborn", stage=2, grace_s=600.0), 1)
    engine = guarded.run(guarded.family("engine", 2, "stubborn", grace_s=600.0), 3)
    begun_s = time.monotonic()
    guarded.guardian.end(lambda: True)
    assert time.monotonic() - begun_s < 60
    assert [pid for pid in kafka + engine if lives(pid)] == []
    ended = [(report.name, report.code) for report in guarded.reports if report.state == "ended"]
    assert ended == [("engine", -signal.SIGKILL), ("kafka", -signal.SIGKILL)]


def test_cores_and_niceness_reach_grandchildren(guarded: Guarded) -> None:
    core = min(os.sched_getaffinity(0))
    family = guarded.run(guarded.family("engine", 1, cores=[core], nice=5), 2)
    for pid in family:
        assert os.sched_getaffinity(pid) == {core}
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 5


def test_a_killed_guardian_is_noticed_and_its_children_swept(guarded: Guarded) -> None:
    family = guarded.run(guarded.family("engine", 2, "stubborn"), 3)
    os.kill(guarded.guardian.pid, signal.SIGKILL)
    assert guarded.lost.wait(10)
    assert processes.sweep(str(guarded.folder), grace_s=0.2) > 0
    assert [pid for pid in family if lives(pid)] == []


RUNNER = """
import pathlib, sys, time
from tests.local.test_supervision import Guarded
guarded = Guarded(pathlib.Path(sys.argv[1]))
guarded.run(guarded.family("engine", 2), 3)
guarded.run(guarded.family("trainer", 1, "stubborn", grace_s=0.5), 2)
print(guarded.guardian.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_runner_leaves_no_orphan(tmp_path: Path, how: signal.Signals) -> None:
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert runner.stdout is not None
    guardian = int(runner.stdout.readline())
    everyone = [guardian, *(pid for family in pids(tmp_path / "pids").values() for pid in family)]
    assert len(everyone) == 6 and all(lives(pid) for pid in everyone)
    runner.send_signal(how)
    runner.wait()
    runner.stdout.close()
    until(lambda: not any(lives(pid) for pid in everyone), "the end of everyone")
    assert processes.marked(str(tmp_path)) == []


def test_the_guardian_outlives_a_terminals_signals(guarded: Guarded) -> None:
    (child,) = guarded.run(guarded.family("drift", 0), 1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(guarded.guardian.pid, number)
    guarded.run(guarded.family("rewards", 0), 1)
    assert lives(child) and lives(guarded.guardian.pid)
