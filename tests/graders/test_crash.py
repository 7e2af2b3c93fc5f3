"""kill -9 at every numbered step of a commit, on Kafka: each answer one grade, however often."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

from tailrace.log.kafka import KafkaLog
from tailrace.stream import publish_schemas
from tests.borders.test_imports import ROOT
from tests.gateway.fakevllm import wait_until
from tests.graders.scene import Room, write_function

pytestmark = pytest.mark.kafka

CHILD = """
import os, signal, sys
from services.graders.__main__ import main

deadly, after = int(sys.argv.pop(1)), int(sys.argv.pop(1))
seen = 0

def reached(step):
    global seen
    seen += step == deadly
    if seen > after:
        os.kill(os.getpid(), signal.SIGKILL)

sys.exit(main(reached))
"""
CHANCE = """
import random

def reward(completions, **kwargs):
    return [random.random() for _ in completions]
"""


class Process:
    """The service on a folder's settings, which may kill itself."""

    def __init__(self, tmp_path: Path, bootstrap: str, prefix: str) -> None:
        write_function(tmp_path, CHANCE, "chance.py")
        (tmp_path / "graders.toml").write_text(
            '[functions.chance]\nfile = "chance.py"\nfunction = "reward"\nmax_age_s = inf\n'
            "batch = 2\n"
        )
        self.settings = tmp_path / "settings.toml"
        self.settings.write_text(
            f'kafka = "{bootstrap}"\nprefix = "{prefix}"\nstate_dir = "."\n'
            '[graders]\nspec = "graders.toml"\ncommit_s = 0.05\n'
        )

    def start(self, deadly: int = 0, after: int = 0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(deadly), str(after), "--settings", self.settings],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])},
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def room(broker: Any, prefix: str) -> Iterator[Room]:
    log = KafkaLog(broker.bootstrap)
    made = Room(log, prefix)
    publish_schemas(log, prefix=prefix)
    yield made
    made.producer.close()
    log.close()


def test_killed_at_each_step_it_says_the_same_again(
    broker: Any, prefix: str, room: Room, tmp_path: Path
) -> None:
    """A function that would say another thing each time: what it said first stands."""
    process = Process(tmp_path, broker.bootstrap, prefix)
    turns = 0
    for deadly in (1, 2, 3, 4):
        for _ in range(6):
            room.turn()
            turns += 1
        room.producer.flush()
        child = process.start(deadly, after=2 if deadly == 1 else 0)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, errors
    child = process.start()
    try:
        wait_until(lambda: len(room.grades()) == turns, "every grade", 30.0)
        wait_until(lambda: room.committed("chance") == turns, "every offset", 30.0)
        child.terminate()
        _, errors = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0, errors
    said: dict[str, set[bytes]] = {}
    for feedback in room.feedback():
        said.setdefault(feedback.feedback_id, set()).add(room.wire.encode(feedback))
    assert len(said) == turns
    assert all(len(bodies) == 1 for bodies in said.values()), "a conflict"
    assert len(room.feedback()) > turns, "no kill fell between feedback and commit"
