"""Adapters: loaded beside what is served, the newest and the one before, verified, acked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
import json
from pathlib import Path
import time

import httpx
import numpy as np
import pytest

from services.engine.acks import Acks
from services.engine.adapters import Adapters
from tailrace import versions
from tailrace.errors import UpdateRefused
from tailrace.events import ModelAck, ModelUpdate
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.settings import Common
from tailrace.weights import adapters, codec
from tailrace.weights.lineage import Lineage
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensor, Tensors, digest, digest_files
from tests.engine.models import MODEL, Trainer, tensors
from tests.engine.real import TOKENS, Models, ask, distance, real_vllm
from tests.engine.room import Room


def lora(number: int) -> Tensors:
    """Some adapter's tensors."""
    bits = np.full(16, 0x3C00 + number, dtype=np.uint16)
    return {"base_model.model.q_proj.lora_A.weight": Tensor.of("bfloat16", (4, 4), bits)}


def publish(
    trainer: Trainer,
    version: int,
    *,
    model: Tensors | None = None,
    rank: int = 4,
    **more: object,
) -> ModelUpdate:
    """An adapter for the head, or what ``more`` says."""
    model = lora(version) if model is None else model
    head = trainer.publisher.head()
    assert head is not None
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "down_proj"],
    }
    files = {adapters.CONFIG_FILE: json.dumps(config).encode()}
    fields = {
        "digest": digest(model),
        "config_digest": digest_files(files),
        "base_version": head.version,
        "base_digest": head.digest,
    }
    manifest = ModelUpdate(
        model=MODEL, version=version, created_ms=1, kind="adapter", **(fields | more)
    )
    stream = codec.encode_keyframe(model, files)
    return trainer.publisher.publish(manifest, stream, [], [])


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    made.trainer.keyframe(0)
    made.turns()
    yield made
    made.trainer.close()
    made.subscriber.close()


def names(room: Room) -> list[str]:
    return sorted(room.vllm.adapters)


def test_the_newest_and_the_one_before_are_loaded(room: Room) -> None:
    for version in (1, 2, 3):
        publish(room.trainer, version)
        room.turns()
        assert room.serves(0, 0), "the label of what is served stays"
    assert names(room) == ["tiny@2", "tiny@3"]
    assert room.vllm.calls.count("pause") == 1, "nobody stood still"
    said = [(ack.state, ack.version) for ack in room.trainer.acks()]
    assert said[1:5] == [("loaded", 1), ("serving", 0), ("loaded", 2), ("serving", 0)]
    path = Path(room.vllm.adapters["tiny@3"])
    assert sorted(p.name for p in path.iterdir()) == [adapters.CONFIG_FILE, adapters.WEIGHTS_FILE]
    assert sorted(p.name for p in path.parent.iterdir()) == ["2", "3"]
    # The next version of the model has a number of its own, and takes the adapters away.
    assert room.trainer.publisher.next_version == 4
    room.trainer.delta(4)
    room.turns()
    assert room.serves(4, 4) and names(room) == []
    assert room.vllm.resumed_with[-1] == [], "gone before anybody met them under other weights"
    publish(room.trainer, 5)
    room.turns()
    assert names(room) == ["tiny@5"]
    # Back on version 0 its own are there again.
    room.trainer.release("pin", 0)
    room.turns()
    assert room.serves(0, 0) and names(room) == ["tiny@2", "tiny@3"]


def test_a_zero_step_version_keeps_them(room: Room) -> None:
    publish(room.trainer, 1)
    room.turns()
    room.trainer.nothing(2)
    room.turns()
    assert room.serves(0, 2) and names(room) == ["tiny@1"]


def test_a_fresh_vllm_gets_them_again(room: Room) -> None:
    publish(room.trainer, 1)
    room.turns()
    room.vllm.dead, room.child.code = True, -9
    room.turns(3, seconds=2.0)
    assert room.serves(0, 0) and names(room) == ["tiny@1"]


def test_an_engine_that_comes_back_asks_what_is_loaded(room: Room, tmp_path: Path) -> None:
    for version in (1, 2):
        publish(room.trainer, version)
    room.turns()
    publish(room.trainer, 3)
    again = Room(tmp_path, beside=room)
    again.vllm = room.vllm
    again.turns()
    assert names(again) == ["tiny@2", "tiny@3"]
    assert room.vllm.calls.count("load_adapter") == 3
    again.subscriber.close()


def test_what_cannot_be_loaded_is_refused_with_its_reason(room: Room) -> None:
    publish(room.trainer, 1)
    publish(room.trainer, 2, rank=64)
    publish(room.trainer, 3, digest="0" * 64)
    room.turns(3)
    assert names(room) == ["tiny@1"]
    refused = [(ack.version, ack.reason) for ack in room.trainer.acks() if ack.state == "refused"]
    assert [version for version, _ in refused] == [2, 3]
    assert "max_lora_rank" in str(refused[0][1]) and "digest" in str(refused[1][1])
    assert room.trainer.acks()[-1].state == "serving" and room.serves(0, 0)


@pytest.mark.parametrize("call", ["models", "load_adapter", "unload_adapter"])
@pytest.mark.parametrize("trouble", ["refuse", "lose", "late", "drop", "hang", "die"])
def test_every_trouble_at_every_call(room: Room, call: str, trouble: str) -> None:
    for version in (1, 2, 3):
        vllm = room.vllm
        vllm.script = {(call, vllm.calls.count(call) + 1): trouble}
        publish(room.trainer, version)
        room.turns(30, seconds=1.0)
    assert room.serves(0, 0)
    refused = {ack.version for ack in room.trainer.acks() if ack.state == "refused"}
    assert refused <= ({1, 2, 3} if (call, trouble) == ("load_adapter", "refuse") else set())
    assert {f"tiny@{v}" for v in (2, 3) if v not in refused} <= set(names(room))


def test_an_engine_without_adapters_says_so(tmp_path: Path) -> None:
    room = Room(tmp_path, adapters=False)
    room.trainer.keyframe(0)
    publish(room.trainer, 1)
    room.turns(3)
    assert room.serves(0, 0) and names(room) == []
    said = [(ack.state, ack.version, ack.reason) for ack in room.trainer.acks()]
    assert ("refused", 1, "adapter: kind: engine.adapters is off") in said
    assert "models" not in room.vllm.calls
    room.trainer.close()
    room.subscriber.close()


def test_a_lineage_keeps_adapters_apart(room: Room) -> None:
    lineage = Lineage()
    base = ModelUpdate(version=0, created_ms=1, kind="keyframe", digest="a")
    assert lineage.add(base) and lineage.next_version == 1
    one = ModelUpdate(version=1, created_ms=1, kind="adapter", base_version=0, base_digest="a")
    assert lineage.add(one) and not lineage.add(one)
    assert lineage.head == base and lineage.next_version == 2
    assert lineage.served(None) == base and not lineage.add(base)
    assert adapters.newest(lineage, "a", 2) == [one] and adapters.newest(lineage, "b", 2) == []


def test_adapters_are_listed_among_the_versions(room: Room) -> None:
    publish(room.trainer, 1)
    room.trainer.delta(2)
    found = versions.gather(room.log, Common(model=MODEL)).versions
    assert [(v.version, v.base, v.kind, v.withdrawn) for v in found] == [
        (0, None, "keyframe", False),
        (1, 0, "adapter", False),
        (2, 0, "delta", False),
    ]


def test_a_publisher_takes_no_adapter_without_its_base(room: Room) -> None:
    with pytest.raises(ValueError, match="base 0 is not there"):
        publish(room.trainer, 1, base_digest="f" * 64)
    publish(room.trainer, 1)
    with pytest.raises(ValueError, match="not after the head"):
        room.trainer.delta(1)


def test_a_stream_without_a_config_is_no_adapter(room: Room) -> None:
    head = room.trainer.publisher.head()
    assert head is not None
    manifest = ModelUpdate(
        model=MODEL, version=1, created_ms=1, kind="adapter", digest=digest(tensors(1)),
        base_version=0, base_digest=head.digest,
    )  # fmt: skip
    stream = codec.encode_keyframe(tensors(1), {})
    update = room.trainer.publisher.publish(manifest, stream, [], [])
    room.subscriber.poll(0)
    with pytest.raises(UpdateRefused, match=adapters.CONFIG_FILE):
        adapters.fetch(room.subscriber, update)


def scaled(base: Tensors, number: int) -> tuple[Tensors, Tensors]:
    """A random adapter of rank 4 on two projections of each layer, and ``base`` with it merged."""
    random = np.random.default_rng(number)
    adapter, merged = {}, dict(base)
    for name, tensor in base.items():
        if not name.endswith(("q_proj.weight", "down_proj.weight")):
            continue
        rows, columns = tensor.shape
        down = bfloat16(0.2 * random.standard_normal((4, columns)))
        up = bfloat16(0.2 * random.standard_normal((rows, 4)))
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"] = down, up
        merged[name] = bfloat16(tensor.float32() + 2.0 * up.float32() @ down.float32())
    return adapter, merged


def bfloat16(values: np.ndarray) -> Tensor:
    """Rounded towards zero."""
    bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return Tensor.of("bfloat16", values.shape, bits)


@pytest.mark.e2e
def test_a_real_vllm_answers_with_the_adapter_of_the_name(tmp_path: Path) -> None:
    models = Models(tmp_path)
    trainer = Trainer(MemoryLog())
    subscriber = Subscriber(trainer.log, trainer.wire, model=MODEL)
    said: list[tuple[str, int, str | None]] = []

    def write(ack: ModelAck) -> Future[Position]:
        said.append((ack.state, ack.version, ack.reason))
        return Future()

    def found(base: Tensors, merged: Tensors, name: str) -> None:
        answer = ask(vllm.url, TOKENS, 4, model=name)
        logprobs = models.reference.logprobs(merged, TOKENS + answer.tokens)[-4:]
        without = models.reference.logprobs(base, TOKENS + answer.tokens)[-4:]
        assert distance(answer.logprobs, logprobs) < 0.1 < 0.3 < distance(logprobs, without)

    with real_vllm(models.folder, tmp_path, adapters=True) as vllm:
        beside = Adapters(
            vllm.admin,
            subscriber,
            Acks(engine="e", model=MODEL, write=write, wall_ms=lambda: 0),
            model=MODEL,
            folder=tmp_path / "adapters",
            clock=time.monotonic,
        )
        version = 0
        for base in (models.base, models.other):
            trainer.whole(version, base, version)
            beside.leave(digest(base))
            vllm.load(version, base)
            label = str(version)
            for number in range(3):
                version += 1
                adapter, merged = scaled(base, number)
                publish(trainer, version, model=adapter)
                subscriber.poll(0)
                assert beside.turn(digest(base))
                assert said[-1] == ("loaded", version, None)
                found(base, merged, f"tiny@{version}")
            assert vllm.admin.weight_info() == label
            assert vllm.admin.models() == ["tiny", f"tiny@{version - 1}", f"tiny@{version}"]
            plain = ask(vllm.url, TOKENS, 4)
            logprobs = models.reference.logprobs(base, TOKENS + plain.tokens)[-4:]
            assert distance(plain.logprobs, logprobs) < 0.1
            version += 1
        trainer.whole(version, models.base, version)
        publish(trainer, version + 1, model=scaled(models.base, 9)[0], rank=64)
        subscriber.poll(0)
        beside.turn(digest(models.base))
        assert said[-1][:2] == ("refused", version + 1) and "rank" in str(said[-1][2])
        closed = httpx.post(
            f"{vllm.url}/v1/load_lora_adapter",
            json={"lora_name": "mine", "lora_path": "/tmp"},
            trust_env=False,
        )
        assert closed.status_code == 403
    trainer.close()
    subscriber.close()
