"""kill -9 of the engine at each commit point: the next one serves the right version, whole."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys

import httpx
import pytest

from services.local.ports import free_port
from tailrace.log.kafka import KafkaLog
from tailrace.weights.tensors import digest
from tests.engine.models import Trainer, tensors
from tests.engine.programs import answers, attached, run, until

UNTOUCHED = ("applied", "laid")
"""Points at which vLLM still runs as before."""
FROZEN = ("paused", "started", "updated", "finished")
POINTS = (*UNTOUCHED, *FROZEN, "resumed", "checked", "acked")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fake vLLM that outlives all engines of this module."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    process = run("tests.engine.fakehttp", str(port), log=log)
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{url}/health"), log)
    yield url
    process.kill()
    process.wait()


class Victims:
    """Engines on one log and one fake vLLM, one after another."""

    def __init__(self, folder: Path, ready_port: int, process: subprocess.Popen[bytes]) -> None:
        self.settings, self.words = folder / "settings.toml", folder / "engine.log"
        self._ready = f"http://127.0.0.1:{ready_port}/readyz"
        self._process = process

    def start(self, point: str, swap: int) -> int:
        """Its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.settings} {point} {swap}\n".encode())
        self._process.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """The exit code of the one that was started last."""
        return self._number()

    def ready(self) -> bool:
        return answers(self._ready)

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture
def victims(broker, prefix: str, vllm: str, tmp_path: Path) -> Iterator[Victims]:  # type: ignore[no-untyped-def]
    port = free_port()
    attached(tmp_path, broker.bootstrap, vllm, port, prefix=prefix)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with run("tests.engine.victim", log=tmp_path / "engine.log", **pipes) as process:
        yield Victims(tmp_path, port, process)
        process.kill()


@pytest.mark.kafka
@pytest.mark.parametrize("swap", [1, 2], ids=["start", "later"])
def test_a_kill_at_each_commit_point(
    broker,  # type: ignore[no-untyped-def]
    prefix: str,
    vllm: str,
    victims: Victims,
    tmp_path: Path,
    swap: int,
) -> None:
    log = KafkaLog(broker.bootstrap)
    trainer = Trainer(log, prefix)
    trainer.keyframe(0)

    def publish(version: int) -> None:
        trainer.delta(version) if version % 3 else trainer.keyframe(version)

    def whole(version: int) -> list[str]:
        return [digest(tensors(version)), str(version)]

    def state() -> dict:  # type: ignore[type-arg]
        return httpx.get(f"{vllm}/state", trust_env=False).json()

    def serving(version: int) -> bool:
        now = state()
        return now["served"][-1] == whole(version) and not now["paused"] and not now["active"]

    def acked() -> list[int]:
        acks = trainer.acks()
        assert all(a.state == "applied" for a in acks)
        assert all(a.digest == digest(tensors(a.version)) for a in acks)
        return [ack.version for ack in acks]

    def serve_the_newest(version: int) -> None:
        until(victims.ready, victims.words)
        assert serving(version), "ready is said of the newest version, whole"
        until(lambda: acked()[-1:] == [version], victims.words)

    before = len(state()["served"])
    publish(1)
    for newest, point in enumerate(POINTS, 1):
        victims.start(point, swap)
        if swap == 2:
            serve_the_newest(newest)
            publish(newest + 1)
        assert victims.ended() == -signal.SIGKILL, victims.words.read_text()[-3000:]
        assert not victims.ready()
        now = state()
        assert now["paused"] == (point in FROZEN)
        if swap == 1:
            publish(newest + 1)
        elif not now["paused"]:
            assert now["served"][-1] == whole(newest + (point not in UNTOUCHED))
    last = len(POINTS) + 1
    survivor = victims.start("-", 0)
    serve_the_newest(last)
    publish(last + 1)
    until(lambda: acked()[-1] == last + 1, victims.words)
    assert serving(last + 1)
    os.kill(survivor, signal.SIGTERM)
    assert victims.ended() == 0, victims.words.read_text()[-3000:]

    # Requests met each version whole, once and in order, but those that a kill at the start kept
    # out. The ack that was under way at the last kill may have reached the log before the next
    # engine's.
    kept_out = UNTOUCHED + FROZEN if swap == 1 else ()
    met = [v for v in range(1, last + 2) if v >= last or POINTS[v - 1] not in kept_out]
    assert state()["served"][before:] == [whole(version) for version in met]
    acks = [last, last + 1] if swap == 1 else list(range(1, last + 2))
    under_way = last + swap - 2
    assert acked() in (acks, sorted([*acks, under_way]))
    assert not list(tmp_path.glob("*.safetensors"))
    trainer.close()
    log.close()


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    child = Path(__file__).parents[2] / "services/engine/child.py"
    note, core = tmp_path / "pid", max(os.sched_getaffinity(0))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), sys.argv[3],"
            " 'sleep', '99'], start_new_session=True)\n"
            "open(sys.argv[2], 'w').write(str(p.pid))\n"
            "time.sleep(99)",
            str(child),
            str(note),
            str(core),
        ]
    )
    until(lambda: note.exists() and bool(note.read_text()), note)
    pid = int(note.read_text())
    until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", note)
    assert os.sched_getaffinity(pid) == {core}
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
    done = subprocess.run(
        [sys.executable, str(child), str(os.getpid() + 1), "", "true"], check=False
    )
    assert done.returncode == 1
