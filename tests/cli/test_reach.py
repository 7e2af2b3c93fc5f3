"""A broker that is away is one line, soon."""

from __future__ import annotations

import pytest

from services.local.ports import free_port
from tailrace import cli, commands


@pytest.mark.parametrize(
    "words",
    [
        "status",
        "models",
        "audit",
        "tail alarms",
        "dead-letters list",
        "reward explain s~1",
        "why 1",
        "topics",
        "lag",
    ],
)
def test_a_broker_that_is_away_is_one_line(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "REACH_S", 0.2)
    kafka = f"127.0.0.1:{free_port()}"
    assert cli.main([*words.split(), "--kafka", kafka]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no answer from {kafka}" in line
