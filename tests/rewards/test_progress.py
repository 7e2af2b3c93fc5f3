"""The recovery says how far it is."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry
import pytest

from services.rewards.metrics import Metrics
from services.rewards.progress import Progress


def test_what_is_left_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registry, now = CollectorRegistry(), [0.0]
    progress = Progress(Metrics(registry), lambda: now[0])
    assert progress.reason() is None
    for second, left in enumerate(range(200, 0, -10)):
        now[0] = float(second)
        progress.see(left)
        assert progress.reason() == f"recovering, {left} values left"
        assert registry.get_sample_value("tailrace_rewards_recovery_values") == left
    progress.see(None)
    progress.see(None)
    assert progress.reason() is None
    assert registry.get_sample_value("tailrace_rewards_recovery_values") == 0
    lines = ["recovering values_left=200", "recovering values_left=100", "recovered"]
    assert caplog.messages == lines
