"""tailrace.process: a wrong setting ends a process with 2 and the key; health is answered."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tailrace import process
from tailrace.errors import Fenced, LogError, SettingsError

CHILD = """
import os, sys
from tailrace import process, settings

class Settings(settings.Common, frozen=True, kw_only=True):
    port: int = 1
    admin_token: str = ""

got = process.start("engine", Settings)
stop = process.stopping()
print(got.port, flush=True)
sys.exit(0 if stop.wait(20) else 9)
"""


def child(tmp_path: Path, text: str, *arguments: str, **environment: str) -> subprocess.Popen:
    file = tmp_path / "t.toml"
    file.write_text(text)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, "--settings", str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | environment,
    )


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("[engine]\nprot = 1\n", {}, "engine.prot"),
        ("", {"TAILRACE_ENGINE_PROT": "1"}, "TAILRACE_ENGINE_PROT"),
        ('log_level = "LOUD"\n', {}, "log_level"),
        ('registry = "127.0.0.1:8081"\n', {}, "registry"),
    ],
)
def test_a_typo_is_named_and_ends_with_2(tmp_path, text, environment, named):
    started = child(tmp_path, text, **environment)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 2
    assert named in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_secrets_are_not_logged(tmp_path, number):
    text = 'redis = "redis://:hush@127.0.0.1:6379/0"\n[engine]\nport = 7\nadmin_token = "hush"\n'
    started = child(tmp_path, text)
    assert started.stdout is not None
    assert started.stdout.readline() == "7\n"
    started.send_signal(number)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 0
    (line,) = errors.splitlines()
    entry = json.loads(line)
    assert entry["service"] == "engine"
    assert "started" in entry["message"]
    assert "hush" not in errors and "127.0.0.1:6379" in errors


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_are_served():
    reasons: list[str | None] = ["not caught up", None]
    server = process.expose(0, lambda: reasons[0])
    assert server is not None
    try:
        port = server.server_address[1]
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "not caught up\n")
        reasons.pop(0)
        assert get(port, "/readyz") == (200, "ok\n")
        assert get(port, "/nowhere")[0] == 404
        status, text = get(port, "/metrics")
        assert status == 200
        assert "python_info" in text
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_port_nothing_is_served():
    assert process.expose(None, lambda: None) is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("a.b: is wrong"), 2, "engine: a.b: is wrong\n"),
        (Fenced("steps-1"), 3, "engine: another one took over: steps-1\n"),
        (LogError("no broker"), 1, ""),
    ],
)
def test_an_end_has_its_code_and_one_line(error, code, said, capsys, caplog):
    assert process.ended("engine", error) == code
    assert capsys.readouterr().err == said
    assert bool(said) != ("no broker" in caplog.text)
