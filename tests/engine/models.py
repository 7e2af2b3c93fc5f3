"""Small models for the engine's tests, and the trainer that publishes them."""

from __future__ import annotations

import json

import numpy as np

from tailrace import topics
from tailrace.events import Canary, ModelAck, ModelUpdate, Release
from tailrace.log.base import Log
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import named
from tailrace.weights import adapters, codec
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import Tensor, Tensors, digest, digest_files
from tailrace.wire import Wire


def tensors(number: int) -> Tensors:
    """A model of three tensors; two numbers give two models that differ in a few weights."""
    bits = np.random.default_rng(0).integers(0x3C00, 0x3F00, 4096, dtype=np.uint16)
    for at in range(number):
        bits[(at * 37) % 4096] += 1
    scale = np.full(8, 1.0 + number, dtype=np.float32)
    return {
        "embed": Tensor.of("bfloat16", (64, 64), bits),
        "norm": Tensor.of("bfloat16", (64,), bits[:64].copy()),
        "scale": Tensor.of("float32", (8,), scale),
    }


def lora(number: int) -> Tensors:
    """Some adapter's tensors."""
    bits = np.full(16, 0x3C00 + number, dtype=np.uint16)
    return {"base_model.model.q_proj.lora_A.weight": Tensor.of("bfloat16", (4, 4), bits)}


MODEL = "tiny"


class Trainer:
    """Publishes versions on a log: version N holds ``tensors(N)`` unless told another number."""

    def __init__(self, log: Log, prefix: str = "") -> None:
        self.log, self.prefix, self.wire = log, prefix, Wire()
        log.create(topics.TOPICS, prefix=prefix, session_partitions=1)
        self.publisher = Publisher(log, self.wire, model=MODEL, prefix=prefix)
        self.contents: dict[int, int] = {}

    def keyframe(self, version: int, number: int | None = None, **more: object) -> ModelUpdate:
        number = version if number is None else number
        return self.whole(version, tensors(number), number, **more)

    def whole(self, version: int, model: Tensors, number: int, **more: object) -> ModelUpdate:
        """A keyframe of any model."""
        more = {"digest": digest(model)} | more
        return self._publish(version, number, codec.encode_keyframe(model, {}), **more)

    def delta(self, version: int, number: int | None = None, **more: object) -> ModelUpdate:
        number = version if number is None else number
        head = self.publisher.head()
        assert head is not None
        base = tensors(self.contents[head.version])
        return self._publish(version, number, codec.encode_delta(base, tensors(number)), **more)

    def nothing(self, version: int) -> ModelUpdate:
        """A zero-step version."""
        head = self.publisher.head()
        assert head is not None
        return self._publish(version, self.contents[head.version], None)

    def adapter(
        self, version: int, *, model: Tensors | None = None, rank: int = 4, **more: object
    ) -> ModelUpdate:
        """An adapter for the head, or for what ``more`` says."""
        head = self.publisher.head()
        assert head is not None
        model = lora(version) if model is None else model
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": 2 * rank,
            "target_modules": ["q_proj", "down_proj"],
        }
        files = {adapters.CONFIG_FILE: json.dumps(config).encode()}
        fields: dict[str, object] = {
            "digest": digest(model),
            "config_digest": digest_files(files),
            "base_version": head.version,
            "base_digest": head.digest,
        }
        manifest = ModelUpdate(
            model=MODEL,
            version=version,
            created_ms=1,
            kind="adapter",
            **(fields | more),  # type: ignore[arg-type]
        )
        return self.publisher.publish(manifest, codec.encode_keyframe(model, files), [], [])

    def release(self, mode: str, live: int | None) -> None:
        producer = self.log.producer()
        release = Release(model=MODEL, event_time_ms=1, mode=mode, live=live)
        Writer(producer, self.wire, prefix=self.prefix).write(topics.RELEASES, release).result(10)
        producer.close()

    def acks(self) -> list[ModelAck]:
        decoder = Decoder(self.log, self.wire, prefix=self.prefix)
        found = read_all(self.log, named(topics.MODEL_ACKS, self.prefix))
        return [decoder.decode(record) for record in found]  # type: ignore[misc]

    def close(self) -> None:
        self.publisher.close()

    def _publish(
        self, version: int, number: int, stream: bytes | None, **more: object
    ) -> ModelUpdate:
        head = self.publisher.head()
        manifest = ModelUpdate(
            model=MODEL,
            version=version,
            created_ms=1,
            base_version=head and head.version,
            base_digest=head and head.digest,
            **({"digest": digest(tensors(number))} | more),  # type: ignore[arg-type]
        )
        self.contents[version] = number
        return self.publisher.publish(manifest, stream, [], [])


def canary(logprobs: list[float]) -> Canary:
    """A canary of two prompt tokens and as many output tokens as there are logprobs."""
    return Canary(
        prompt_tokens=pack_ids([1, 2]),
        output_tokens=pack_ids([3] * len(logprobs)),
        logprobs=pack_logprobs(logprobs),
    )
