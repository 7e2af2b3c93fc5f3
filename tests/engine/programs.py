"""Engines as processes: their settings, their start, and waiting for what they do."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
from pathlib import Path
import signal
import subprocess
import sys
import time

import httpx

from tailrace.weights import folder as model_folder
from tests.engine.fakehttp import TOKEN
from tests.engine.models import MODEL, tensors


def run(module: str, *arguments: str, log: Path, **pipes: int) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            **{"stdout": output, "stderr": output} | pipes,  # type: ignore[call-overload]
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),
        )


def until(what: Callable[[], bool], log: Path, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def attached(folder: Path, bootstrap: str, vllm: str, ready_port: int, prefix: str = "") -> Path:
    """Settings of an engine on ``tensors(0)``, attached to a fake vLLM; all of it in ``folder``."""
    model_folder.write(folder / "base", tensors(0), {})
    file = folder / "settings.toml"
    file.write_text(
        f'kafka = "{bootstrap}"\nprefix = "{prefix}"\nmodel = "{MODEL}"\n'
        f'state_dir = "{folder}"\n[engine]\nmodel_folder = "{folder / "base"}"\n'
        f'vllm_url = "{vllm}"\nadmin_token = "{TOKEN}"\nshared_dir = "{folder}"\n'
        f"metrics_port = {ready_port}\n"
    )
    return file
