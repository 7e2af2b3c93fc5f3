"""The real process on a real broker, killed at every commit point: one release per order."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

from tailrace.log.kafka import KafkaLog
from tests.releases.scene import Scene

pytestmark = pytest.mark.kafka
POINTS = ("read", "answered", "written", "committed")
PROGRAM = """
import os, signal, sys
from services.releases.__main__ import main

def crash(at):
    if at == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    if at == "committed" and sys.argv[2] == "run":
        os.kill(os.getpid(), signal.SIGTERM)

sys.exit(main(["--settings", sys.argv[1]], crash))
"""


def test_killed_at_every_commit_point(broker: Any, prefix: str, tmp_path: Path) -> None:
    log = KafkaLog(broker.bootstrap)
    scene = Scene(log, prefix)
    scene.versions(4)
    file = tmp_path / "settings.toml"
    file.write_text(f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nmodel = "tiny"\n')

    def run(point: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(file), point],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    for number, point in enumerate(POINTS):
        scene.order("rollback" if number % 2 else "pin", number)
        assert run(point) == -signal.SIGKILL
    scene.order("follow")
    assert run("run") == 0
    found = scene.releases()
    assert [r.command and r.command.offset for r in found] == [0, 1, 2, 3, 4]
    assert [(r.mode, r.live) for r in found] == [
        ("pin", 0),
        ("follow", 1),
        ("pin", 2),
        ("follow", 3),
        ("follow", 3),
    ]
    scene.close()
    log.close()
