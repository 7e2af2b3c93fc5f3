"""Trajectories as rewards would write them, for tests: small, random, in the tiny model's
tokens."""

from __future__ import annotations

from collections.abc import Iterable
import random
from typing import Any

import msgspec

from tailrace import ids, topics
from tailrace.events import ModelUpdate, Trajectory, TrajectoryContent, VersionSpan
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

MODEL = "tiny"
TIME_MS = 1_700_000_000_000
SYSTEM = list(range(20, 32))
"""Every prompt begins with these tokens, as a chat template makes it."""


def trajectory(number: int, **fields: Any) -> Trajectory:
    """Trajectory ``number``: the same number, the same bytes."""
    chance = random.Random(number)
    prompt = SYSTEM + [chance.randrange(3, 500) for _ in range(chance.randrange(2, 8))]
    tokens = [chance.randrange(3, 500) for _ in range(chance.randrange(1, 12))]
    session = f"default:s{number}"
    interaction = ids.new_interaction(session, TIME_MS)[:-13] + f"{number:013d}"
    values: dict[str, Any] = {
        "trajectory_id": ids.trajectory(interaction, 0, ["r0"]),
        "interaction_id": interaction,
        "event_time_ms": TIME_MS,
        "reward": float(chance.choice([-1, 1])),
        "tenant": "default",
        "learn": True,
        "model": MODEL,
        "logprobs_mode": "processed_logprobs",
        "weight_versions": [VersionSpan(version=0, start=0, end=len(tokens))],
        "closed_log_time_ms": TIME_MS + number,
        "first_feedback_log_time_ms": TIME_MS + number,
        "last_feedback_log_time_ms": TIME_MS + number,
        "content": TrajectoryContent(
            prompt_token_ids=pack_ids(prompt),
            token_ids=pack_ids(tokens),
            logprobs=pack_logprobs([-5.0 - chance.random() for _ in tokens]),
        ),
    }
    return Trajectory(**(values | fields))


def sampled(number: int, version: int) -> Trajectory:
    """Trajectory ``number``, an answer of one version."""
    made = trajectory(number)
    spans = [msgspec.structs.replace(span, version=version) for span in made.weight_versions]
    return msgspec.structs.replace(made, weight_versions=spans)


def make_topics(log: Log, prefix: str = "", partitions: int = 2) -> None:
    log.create(topics.TOPICS, prefix=prefix, session_partitions=partitions)
    publish_schemas(log, prefix=prefix)


def put(log: Log, trajectories: Iterable[Trajectory], prefix: str = "") -> None:
    """Append them, acknowledged."""
    producer = log.producer()
    try:
        writer = Writer(producer, Wire(), prefix=prefix, source="rewards")
        futures = [writer.write(topics.TRAJECTORIES, t) for t in trajectories]
        producer.flush()
        for future in futures:
            future.result(10)
    finally:
        producer.close()


def spoil(log: MemoryLog, update: ModelUpdate) -> None:
    """Another last byte in what a version's manifest names."""
    assert update.chunks is not None
    partition = log._partitions(topics.MODEL_CHUNKS.name)[update.chunks.partition]
    entry = partition.entries[update.chunks.offsets[-1]]
    value = entry.record.value or b""
    entry.record = msgspec.structs.replace(entry.record, value=value[:-1] + bytes([value[-1] ^ 1]))
