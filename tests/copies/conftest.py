"""The command line on a log in memory."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import pytest

from tailrace import cli
from tailrace.log import kafka
from tailrace.log.base import Log

Command = Callable[..., Any]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs one on a log; what it said with ``--json``, else its exit code and words."""

    def run(log: Log, *words: object) -> Any:
        monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: log)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        if "--json" in words:
            assert code == 0, err
            return json.loads(out.splitlines()[-1])
        return code, out + err

    return run
