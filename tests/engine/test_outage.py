"""The log goes away and comes back: the engine serves all along, then catches up by itself."""

from __future__ import annotations

from pathlib import Path
import time

import httpx
import pytest

from services.local.ports import free_port
from tailrace.errors import LogError, UpdateRefused
from tailrace.log.kafka import KafkaLog
from tailrace.weights.tensors import digest
from tests.conftest import TestBroker
from tests.engine.models import Trainer, tensors
from tests.engine.programs import answers, attached, run, until
from tests.engine.room import Room


def test_versions_that_came_while_the_log_was_silent(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.trainer.keyframe(0)
    room.turns()

    def silent(*_: object) -> None:
        raise LogError("no broker")

    with monkeypatch.context() as outage:
        outage.setattr(room.subscriber, "poll", silent)
        for version in (1, 2):
            room.trainer.delta(version)
        room.turns(20, seconds=10.0)
        assert room.serves(0, 0)
    with monkeypatch.context() as outage:
        outage.setattr(room.subscriber, "fetch", silent)
        room.turns(20, seconds=10.0)
        assert room.serves(0, 0), "manifests came, their bytes do not"
        room.vllm.dead, room.child.code = True, -9
        room.turns(20, seconds=2.0)
        assert room.serves(0, 0) and room.child.starts == 2, "vLLM died meanwhile"
    room.turns()
    assert room.serves(2, 2)
    assert not [ack for ack in room.acks() if ack[0] == "refused"]


def test_bytes_that_cannot_be_had_are_asked_for_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.trainer.keyframe(0)
    room.turns()
    asked: list[float] = []

    def away(*_: object) -> bytes:
        asked.append(room.clock.now)
        raise UpdateRefused("uri", "the store is away")

    with monkeypatch.context() as outage:
        outage.setattr(room.subscriber, "fetch", away)
        room.trainer.delta(1)
        room.turns(100, seconds=1.0)
        assert room.serves(0, 0)
    assert len(asked) == 2 and asked[1] - asked[0] >= 60
    room.turns(60, seconds=1.0)
    assert room.serves(1, 1)
    assert [ack[:2] for ack in room.acks() if ack[0] != "serving"] == [
        ("applied", 0),
        ("refused", 1),
        ("refused", 1),
        ("applied", 1),
    ]


def test_a_vllm_that_never_comes_up_is_started_less_and_less_often(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []

    def die() -> None:
        starts.append(room.clock.now)
        room.child.code = 1

    monkeypatch.setattr(room.child, "start", die)
    room.turns(400, seconds=0.25)
    gaps = [round(b - a) for a, b in zip(starts, starts[1:], strict=False)]
    assert gaps[:5] == [1, 2, 5, 10, 30] and set(gaps[5:]) <= {30, 31}
    assert "exit code 1: ValueError: no" in str(room.engine.reason())
    monkeypatch.undo()
    room.turns(8, seconds=10.0)
    assert room.serves(0, 0)


@pytest.mark.kafka
def test_a_broker_that_is_killed_and_comes_back(own_broker: TestBroker, tmp_path: Path) -> None:
    port, ready_port = free_port(), free_port()
    vllm, ready = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ready_port}/readyz"
    words = tmp_path / "engine.log"
    settings = attached(tmp_path, own_broker.bootstrap, vllm, ready_port)
    log = KafkaLog(own_broker.bootstrap)
    trainer = Trainer(log)
    trainer.keyframe(0)
    fake = run("tests.engine.fakehttp", str(port), log=tmp_path / "vllm.log")
    until(lambda: answers(f"{vllm}/health"), words)
    engine = run("services.engine", "--settings", str(settings), log=words)

    def serves(version: int) -> bool:
        now = httpx.get(f"{vllm}/state", trust_env=False).json()
        return now["served"][-1] == [digest(tensors(version)), str(version)]

    until(lambda: answers(ready) and serves(0), words)
    for newest in (1, 2):
        own_broker.kill()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            assert answers(ready) and engine.poll() is None
            time.sleep(0.1)
        own_broker.start()
        own_broker.wait_ready()
        trainer.delta(newest)
        until(lambda: serves(newest), words, 60.0)  # noqa: B023
        assert answers(ready)
    until(lambda: trainer.acks()[-1].version == 2, words)
    for process in (engine, fake):
        process.terminate()
        process.wait(20)
    trainer.close()
    log.close()
