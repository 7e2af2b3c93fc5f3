"""A real vLLM answers with the adapter of the name, beside what it serves."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
import threading
import time

import httpx
import numpy as np
import pytest

from services.engine.acks import Acks
from services.engine.adapters import Adapters
from tailrace.events import ModelAck
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensor, Tensors, digest
from tests.engine.models import MODEL, Trainer
from tests.engine.real import TOKENS, Models, ask, distance, real_vllm

COUNT = 24
"""Tokens of an answer: where two are nearly as likely, bfloat16 alone moves one by 0.4 nats; the
mean over so many it does not."""


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
def test_a_real_vllm_answers_with_the_adapter_of_the_name(models: Models, tmp_path: Path) -> None:
    trainer = Trainer(MemoryLog())
    subscriber = Subscriber(trainer.log, trainer.wire, model=MODEL)
    said: list[tuple[str, int, str | None]] = []

    def write(ack: ModelAck) -> Future[Position]:
        said.append((ack.state, ack.version, ack.reason))
        return Future()

    def found(base: Tensors, merged: Tensors, name: str) -> None:
        answer = ask(lora.url, TOKENS, COUNT, model=name)
        logprobs = models.reference.logprobs(merged, TOKENS + answer.tokens)[-COUNT:]
        without = models.reference.logprobs(base, TOKENS + answer.tokens)[-COUNT:]
        assert distance(answer.logprobs, logprobs) < 0.1 < 0.3 < distance(logprobs, without)

    with real_vllm(models.folder, tmp_path, adapters=True) as lora:
        beside = Adapters(
            lora.admin,
            subscriber,
            Acks(engine="e", model=MODEL, write=write, wall_ms=lambda: 0),
            model=MODEL,
            folder=tmp_path / "adapters",
            clock=time.monotonic,
        )
        version = 0
        for base in (models.base, models.other):
            trainer.whole(version, base, version)
            begun = threading.Event()
            with ThreadPoolExecutor() as users:
                if version:  # an answer with an adapter that is unloaded before it ends
                    asked = (TOKENS, 150)
                    named = {"model": f"tiny@{version - 1}", "begun": begun.set}
                    under_way = users.submit(ask, lora.url, *asked, **named)
                    assert begun.wait(60)
                beside.leave(digest(base))
                lora.swap().load(lora.load_of(version, base))
                if version:
                    assert len(under_way.result(120).spans) == 2
            label = str(version)
            for number in range(3):
                version += 1
                adapter, merged = scaled(base, number)
                trainer.adapter(version, model=adapter)
                subscriber.poll(0)
                assert beside.turn(digest(base))
                assert said[-1] == ("loaded", version, None)
                found(base, merged, f"tiny@{version}")
            assert lora.admin.weight_info() == label
            assert lora.admin.models() == ["tiny", f"tiny@{version - 1}", f"tiny@{version}"]
            plain = ask(lora.url, TOKENS, COUNT)
            logprobs = models.reference.logprobs(base, TOKENS + plain.tokens)[-COUNT:]
            assert distance(plain.logprobs, logprobs) < 0.1
            version += 1
        trainer.whole(version, models.base, version)
        trainer.adapter(version + 1, model=scaled(models.base, 9)[0], rank=64)
        subscriber.poll(0)
        beside.turn(digest(models.base))
        assert said[-1][:2] == ("refused", version + 1) and "rank" in str(said[-1][2])
        closed = httpx.post(
            f"{lora.url}/v1/load_lora_adapter",
            json={"lora_name": "mine", "lora_path": "/tmp"},
            trust_env=False,
        )
        assert closed.status_code == 403
    trainer.close()
    subscriber.close()
