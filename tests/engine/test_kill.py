"""kill -9 of the engine at each commit point: the next one serves the right version, whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import ctypes
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import httpx
import pytest

from services.local.ports import free_port
from tailrace.log.kafka import KafkaLog
from tailrace.weights import folder
from tailrace.weights.tensors import digest
from tests.engine.fakehttp import TOKEN
from tests.engine.models import MODEL, Trainer, tensors

POINTS = (
    "applied", "laid", "paused", "started", "updated", "finished", "resumed", "checked", "acked",
)  # fmt: skip


def run(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=output,
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),
        )


def until(what: Callable[[], bool], log: Path, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fake vLLM that outlives all engines of this module."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    process = run("tests.engine.fakehttp", str(port), log=log)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    until(up, log)
    yield url
    process.kill()
    process.wait()


@pytest.mark.kafka
def test_a_kill_at_each_commit_point(broker, prefix, vllm: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = KafkaLog(broker.bootstrap)
    trainer = Trainer(log, prefix)
    trainer.keyframe(0)
    folder.write(tmp_path / "base", tensors(0), {})
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nmodel = "{MODEL}"\n'
        f'state_dir = "{tmp_path}"\n[engine]\nmodel_folder = "{tmp_path / "base"}"\n'
        f'vllm_url = "{vllm}"\nadmin_token = "{TOKEN}"\nshared_dir = "{tmp_path}"\n'
    )
    words = tmp_path / "engine.log"

    def state() -> dict:  # type: ignore[type-arg]
        return httpx.get(f"{vllm}/state").json()

    def serving(version: int) -> bool:
        now = state()
        whole = [digest(tensors(version)), str(version)]
        return now["served"][-1] == whole and not now["paused"] and not now["active"]

    for version, point in enumerate(POINTS, 1):
        trainer.delta(version)
        victim = run("tests.engine.victim", str(settings), point, log=words)
        assert victim.wait(30) == -signal.SIGKILL, words.read_text()[-3000:]
    last = len(POINTS)
    survivor = run("tests.engine.victim", str(settings), "-", log=words)
    try:
        until(lambda: serving(last), words)
        trainer.delta(last + 1)
        until(lambda: serving(last + 1), words)
    finally:
        survivor.terminate()
        assert survivor.wait(20) == 0, words.read_text()[-3000:]
    versions = {(digest(tensors(n)), str(n)) for n in range(last + 2)} | {("base", "default")}
    assert {(weights, label) for weights, label in state()["served"]} <= versions
    acks = [(ack.state, ack.version) for ack in trainer.acks()]
    assert acks[-1] == ("applied", last + 1) and {state for state, _ in acks} == {"applied"}
    assert not list(tmp_path.glob("*.safetensors"))
    trainer.close()
    log.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    child = Path(__file__).parents[2] / "services/engine/child.py"
    note = tmp_path / "pid"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), 'sleep', '99'],"
            " start_new_session=True)\n"
            "open(sys.argv[2], 'w').write(str(p.pid))\n"
            "time.sleep(99)",
            str(child),
            str(note),
        ]
    )
    until(lambda: note.exists() and bool(note.read_text()), note)
    pid = int(note.read_text())
    until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", note)
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return True

    until(gone, note)


def test_a_child_whose_parent_is_gone_does_not_start() -> None:
    child = Path(__file__).parents[2] / "services/engine/child.py"
    done = subprocess.run([sys.executable, str(child), str(os.getpid() + 1), "true"], check=False)
    assert done.returncode == 1
