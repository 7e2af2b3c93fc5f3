"""What updates cost those who are being answered: section ``serving`` of :mod:`benchmarks.weights`.

    publisher here ──> Kafka ──> engine ──> vLLM <── streams of answers from here

SmolLM2-135M-Instruct in a vLLM on the first half of the cores, as the local runner places it, its
engine, the broker and this process anywhere; a few streams ask vLLM all the time. First without
updates, then through ``updates`` of them: each the rounding of fp32 masters moved by 2e-5, forth
and back, so that every one changes more weights (9 %) than a step of training does (8 %). The next
is published when the last was acked and ``between_s`` went by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
import os
from pathlib import Path
import sys
import threading
import time
from typing import Any

import httpx
import msgspec
import numpy as np

from benchmarks.servers import CACHE_DIR, Servers, ready, say
from services.local import model
from services.local.placement import omp_binding, serving
from services.local.ports import free_port
from services.local.processor import own_dtype
from tailrace import topics
from tailrace.events import ModelAck, ModelUpdate
from tailrace.log.base import Consumer
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Decoder, publish_schemas
from tailrace.weights import codec, folder
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import Tensor, Tensors, digest
from tailrace.wire import Wire

LR = 2e-5
STREAMS = 4
ANSWER_TOKENS = 64
PROMPT_TOKENS = 48
_ACK_S = 60.0


def measure(*, updates: int = 100, quiet_s: float = 60.0, between_s: float = 1.0) -> dict[str, Any]:
    """The figures of one run, in ms and s. Raises RuntimeError when an update is not acked."""
    source = model.prepare(CACHE_DIR, say)
    base = dict(folder.read(source))
    other = stepped(base)
    with Servers() as servers:
        usable = sorted(os.sched_getaffinity(0))
        cores = serving(usable) or usable
        bootstrap, url = start(servers, source, cores)
        log, wire = KafkaLog(bootstrap), Wire()
        publisher = Publisher(log, wire, model=model.NAME)
        acks = Acks(log, wire)
        forth = Alternation(publisher, base, other)
        forth.publish()
        acks.wait(0)
        with Streams(url) as quiet:
            time.sleep(quiet_s)
        pauses_ms, applies_ms, waits_s = [], [], []
        with Streams(url) as updating:
            for version in range(1, updates + 1):
                published_s = forth.publish()
                ack, acked_s = acks.wait(version)
                waits_s.append(acked_s - published_s)
                pauses_ms.append(ack.pause_ms or 0.0)
                applies_ms.append(ack.apply_ms or 0.0)
                time.sleep(between_s)
        publisher.close()
        log.close()
    return {
        "updates": updates,
        "pause_ms": _figures(pauses_ms, p50=50, max=100),
        "apply_ms": _figures(applies_ms, p50=50, max=100),
        "token_gap_ms": _figures(updating.gaps_ms, p50=50, max=100),
        "quiet_token_gap_ms": _figures(quiet.gaps_ms, p50=50, max=100),
        "failed_requests": len(updating.failed) + len(quiet.failed),
        "answers": len(updating.gaps_ms),
        "ttft_ms": {
            "quiet_p99": _figures(quiet.ttft_ms, p99=99)["p99"],
            "updating_p99": _figures(updating.ttft_ms, p99=99)["p99"],
        },
        "published_to_acked_s": _figures(waits_s, p50=50, p95=95),
        "update_bytes": forth.bytes,
    }


def stepped(base: Tensors) -> Tensors:
    """Another version: fp32 masters that lie anywhere within the rounding of ``base``, moved by LR
    up or down, rounded again."""
    random = np.random.default_rng(0)
    made: Tensors = {}
    for name, tensor in base.items():
        if tensor.dtype != "bfloat16":
            made[name] = tensor
            continue
        bits = tensor.bits.reshape(-1).astype(np.uint32) << 16
        master = (bits + random.integers(-(1 << 15), 1 << 15, bits.size).astype(np.uint32)).view(
            np.float32
        )
        sign = random.integers(0, 2, bits.size, dtype=np.int8) * 2 - 1
        moved = (master + np.float32(LR) * sign).astype(np.float32).view(np.uint32)
        rounded = ((moved + 0x8000) >> 16).astype(np.uint16)
        made[name] = Tensor.of("bfloat16", tensor.shape, rounded)
    return made


class Alternation:
    """Publishes two versions in turn."""

    def __init__(self, publisher: Publisher, base: Tensors, other: Tensors) -> None:
        self._publisher = publisher
        self._digests = (digest(base), digest(other))
        self._streams = (codec.encode_delta(other, base), codec.encode_delta(base, other))
        self._first = codec.encode_keyframe(base, {})
        self.bytes = len(self._streams[1])

    def publish(self) -> float:
        """The next version. Returns when its manifest was committed."""
        head = self._publisher.head()
        version = 0 if head is None else head.version + 1
        manifest = ModelUpdate(
            model=model.NAME,
            version=version,
            created_ms=time.time_ns() // 1_000_000,
            digest=self._digests[version % 2],
            base_version=head and head.version,
            base_digest=head and head.digest,
        )
        stream = self._first if head is None else self._streams[version % 2]
        self._publisher.publish(manifest, stream, [], [])
        return time.monotonic()


class Acks:
    """Waits for what the engine says."""

    def __init__(self, log: KafkaLog, wire: Wire) -> None:
        self._decoder = Decoder(log, wire)
        self._consumer: Consumer = log.consumer()
        self._consumer.assign({(topics.MODEL_ACKS.name, 0): 0})

    def wait(self, version: int) -> tuple[ModelAck, float]:
        """The ack of a version, and when it came. Raises RuntimeError."""
        end = time.monotonic() + _ACK_S
        while time.monotonic() < end:
            for record in self._consumer.poll(0.1):
                ack = self._decoder.decode(record)
                assert isinstance(ack, ModelAck)
                if ack.state == "refused":
                    raise RuntimeError(f"version {ack.version} was refused: {ack.reason}")
                if ack.version == version and ack.state == "applied":
                    return ack, time.monotonic()
        raise RuntimeError(f"version {version} was not acked")


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


class Streams:
    """Some who ask without a break. In ms: times to first tokens, and of each answer the longest
    gap between two of its tokens."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.ttft_ms: list[float] = []
        self.gaps_ms: list[float] = []
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(STREAMS)
        ]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _run(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        decoder = msgspec.json.Decoder(_Chunk)
        with httpx.Client(base_url=self._url, timeout=60.0, trust_env=False) as client:
            while not self._stop.is_set():
                prompt = random.integers(100, 40_000, PROMPT_TOKENS).tolist()
                try:
                    self._ask(client, decoder, prompt)
                except (httpx.HTTPError, RuntimeError) as error:
                    self.failed.append(repr(error))

    def _ask(
        self, client: httpx.Client, decoder: msgspec.json.Decoder[_Chunk], prompt: list[int]
    ) -> None:
        sampling = {"max_tokens": ANSWER_TOKENS, "temperature": 1.0, "ignore_eos": True}
        body = {"token_ids": prompt, "sampling_params": sampling, "stream": True}
        asked = time.monotonic()
        times: list[float] = []
        count = 0
        with client.stream("POST", "/inference/v1/generate", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    now = time.monotonic()
                    tokens = [c.token_ids or [] for c in decoder.decode(line[6:]).choices]
                    if any(tokens):
                        times.append(now)
                        count += sum(map(len, tokens))
        if count != ANSWER_TOKENS:
            raise RuntimeError(f"{count} tokens of {ANSWER_TOKENS}")
        self.ttft_ms.append((times[0] - asked) * 1000)
        self.gaps_ms.append(max(b - a for a, b in _pairs(times)) * 1000)


def _pairs(times: list[float]) -> Iterator[tuple[float, float]]:
    return zip(times, times[1:], strict=False)


def _figures(values: list[float], **wanted: int) -> dict[str, float]:
    return {name: round(float(np.percentile(values, p)), 3) for name, p in wanted.items()}


def start(servers: Servers, source: Path, cores: Sequence[int]) -> tuple[str, str]:
    """(bootstrap servers, URL of vLLM) once the engine has its vLLM up, on these cores."""
    bootstrap, where = servers.kafka(), servers.folder
    log = KafkaLog(bootstrap)
    log.create(topics.TOPICS, session_partitions=4)
    publish_schemas(log)
    log.close()
    port, ready_port = free_port(), free_port()
    settings = where / "settings.toml"
    settings.write_text(
        f'kafka = "{bootstrap}"\nmodel = "{model.NAME}"\nstate_dir = "{where}"\n'
        f'[engine]\nmodel_folder = "{source}"\nvllm_port = {port}\nmetrics_port = {ready_port}\n'
        f'cores = "{omp_binding(cores)}"\ndtype = "{own_dtype()}"\n'
    )
    engine = [sys.executable, "-m", "services.engine", "--settings", str(settings)]
    ready(f"http://127.0.0.1:{ready_port}", "/readyz", servers.start("engine", engine), 300.0)
    return bootstrap, f"http://127.0.0.1:{port}"


def main() -> None:
    """``python -m benchmarks.serving [UPDATES]``: this section alone."""
    print(json.dumps(measure(updates=int((sys.argv[1:] or ["100"])[0]))))


if __name__ == "__main__":
    main()
