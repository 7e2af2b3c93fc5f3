"""What each service does when the schema registry is away as it starts: a line, and no traceback.

What serves users (gateway, engine) goes on and asks again; the others end, for their supervisor to
start them again.
"""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from services.local.ports import free_port
from tailrace import topics
from tailrace.log.kafka import KafkaLog

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
AWAY = "schema registry: Prompt: ConnectError"
SETTINGS = """
kafka = "{kafka}"
registry = "{away}"
prefix = "{prefix}"
state_dir = "{folder}"
[engine]
model_folder = "{model}"
vllm_url = "{away}"
admin_token = "secret"
[gateway]
model_dir = "{model}"
engine_url = "{away}"
port = 0
[trainer]
model_dir = "{model}"
[graders]
spec = "{folder}/graders.toml"
"""
GRADERS = """
[functions.sums]
file = "{root}/examples/graders/sums.py"
function = "reward"
metric = "sums"
"""


@pytest.fixture
def start(
    broker: Any, prefix: str, tmp_path: Path, tiny_model: Path
) -> Callable[[str], subprocess.Popen[str]]:
    log = KafkaLog(broker.bootstrap)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=1)
    log.close()
    file = tmp_path / "settings.toml"
    file.write_text(
        SETTINGS.format(
            kafka=broker.bootstrap,
            away=f"http://127.0.0.1:{free_port()}",
            prefix=prefix,
            folder=tmp_path,
            model=tiny_model,
        )
    )
    (tmp_path / "graders.toml").write_text(GRADERS.format(root=ROOT))

    def started(service: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"services.{service}", "--settings", str(file)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.mark.parametrize("service", ["rewards", "graders", "drift", "trainer"])
def test_what_cannot_work_without_it_says_so_and_ends(
    service: str, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    child = start(service)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 1, said
    lines = [json.loads(line) for line in said.splitlines()]
    (last,) = [line for line in lines if line["level"] == "CRITICAL"]
    assert AWAY in last["message"]
    assert not [line for line in lines if "exception" in line]


@pytest.mark.parametrize("service", ["engine", "gateway"])
def test_what_serves_goes_on_without_it(
    service: str, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    child = start(service)
    assert child.stderr is not None
    said = ""
    until = time.monotonic() + 120
    while AWAY not in said and time.monotonic() < until and child.poll() is None:
        said += child.stderr.readline()
    assert AWAY in said
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    rest = child.communicate(timeout=60)[1]
    assert child.returncode == 0, rest
    assert "Traceback" not in said + rest
