"""All graders of a process together: one that is slow or dead holds up no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import threading
from typing import Any

import pytest

from services.graders import spec
from services.graders.app import Graders
from services.graders.settings import Settings
from tailrace.errors import LogError
from tailrace.log.memory import MemoryLog
from tests.gateway.fakevllm import wait_until
from tests.graders.scene import FakeJudge, Room, serving, write_function

GOOD = "def reward(completions, **kwargs):\n    return [0.5 for _ in completions]\n"
STUCK = "import time\ndef reward(**kwargs):\n    time.sleep(600)\n"
DEAD = "raise SystemExit(1)\ndef reward(**kwargs):\n    pass\n"


def function(name: str, **given: Any) -> str:
    lines = [f"[functions.{name}]", f'file = "{name}.py"', 'function = "reward"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in given.items())]) + "\n"


@contextmanager
def running(tmp_path: Path, log: Any, text: str, **given: Any) -> Iterator[Graders]:
    file = tmp_path / "graders.toml"
    file.write_text(text)
    settings = Settings(state_dir=tmp_path, commit_s=0.05, **given)
    graders = Graders(settings, spec.load(file, {}), log)
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            graders.run(stop)
        except LogError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: graders.ready() is None or errors, "the graders")
        yield graders
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
        graders.errors = errors  # type: ignore[attr-defined]


def graded(room: Room, name: str) -> int:
    return sum(f.grader == name for f in room.feedback())


@pytest.fixture
def room() -> Room:
    return Room(MemoryLog())


def test_slow_and_dead_graders_lag_alone(tmp_path: Path, room: Room) -> None:
    write_function(tmp_path, GOOD, "good.py")
    write_function(tmp_path, STUCK, "stuck.py")
    write_function(tmp_path, DEAD, "dead.py")
    judge = FakeJudge()
    judge.hangs = True
    with serving(judge) as url:
        text = function("good") + function("stuck", timeout_s=600) + function("dead")
        text += (
            f'[judges.mute]\nurl = "{url}"\nmodel = "j"\nprompt = "{{answer}}"\nrange = [1, 5]\n'
        )
        with running(tmp_path, room.log, text):
            for _ in range(50):
                room.turn()
            wait_until(lambda: graded(room, "good") == 50, "50 grades")
            wait_until(lambda: room.committed("good") == 50, "their offsets")
            assert room.committed("stuck") == room.committed("mute") == 0
        judge.hangs = False
    assert {f.grader for f in room.feedback()} == {"good"}


def test_a_stop_leaves_the_rest_for_the_next_start(tmp_path: Path, room: Room) -> None:
    write_function(tmp_path, STUCK, "late.py")
    with running(tmp_path, room.log, function("late", timeout_s=600)):
        for _ in range(5):
            room.turn()
    assert not room.feedback()
    write_function(tmp_path, GOOD, "late.py")
    with running(tmp_path, room.log, function("late", timeout_s=600)):
        wait_until(lambda: graded(room, "late") == 5, "5 grades")


def test_two_processes_share_the_partitions(tmp_path: Path, room: Room) -> None:
    write_function(tmp_path, GOOD, "good.py")
    for _ in range(20):
        room.turn()
    for share in ("0/2", "1/2"):
        with running(tmp_path, room.log, function("good"), share=share):
            partition = int(share[0])
            wanted = {p: end for p, end in room.log.ends("outputs").items() if p <= partition}
            wait_until(
                lambda wanted=wanted: graded(room, "good") == sum(wanted.values()), "the grades"
            )
    assert len(room.feedback()) == 20


def test_a_log_that_fails_ends_the_process(tmp_path: Path) -> None:
    write_function(tmp_path, GOOD, "good.py")
    with running(tmp_path, MemoryLog(), function("good")) as graders:
        pass
    (error,) = graders.errors  # type: ignore[attr-defined]
    assert "unknown topic" in str(error)
