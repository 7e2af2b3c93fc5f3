"""What Prometheus' own tool says of what a process shows: names, units, help."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from services.rewards.metrics import Metrics
from tests.metrics import walk
Metrics()
walk.metrics()
for made in list(REGISTRY._collector_to_names):
    if labels := getattr(made, "_labelnames", ()):
        made.labels(*labels)
sys.stdout.buffer.write(generate_latest())
"""


@pytest.mark.tools
def test_promtool_has_nothing_to_say_against_what_processes_show():
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=120)
    assert shown.returncode == 0, shown.stderr.decode()
    assert shown.stdout.count(b"# HELP tailrace_") > 90
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=shown.stdout, capture_output=True, timeout=60
    )
    assert said.returncode == 0 and not said.stderr, said.stderr.decode()
