"""Receipts, model updates and acks, folded into Redis: the writer of the view in ``fate``.

A thread with its own consumer and Redis client. Each batch and the offsets after it are written in
one MULTI, so the offsets live and die with what they stand for: a Redis that lost its data is
rebuilt from the log's beginning, and several gateways may fold into the same Redis (every write is
idempotent, and whoever finds other offsets than its own goes on from those). Committed records
only.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
import threading
from typing import Any

import redis
from redis import exceptions

from services.gateway import metrics
from services.gateway.fate import Names
from tailrace import events, topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.log.base import Consumer, Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.wire import Wire

log = logging.getLogger(__name__)
_TOPICS = (topics.RECEIPTS, topics.MODEL_ACKS)
_REPEATS = ("duplicate", "conflict")
"""Outcomes of another record with the same id: they do not replace what became of the first."""
_SERVES = ("applied", "serving")
_POLL_S = 0.25
_PAUSE_S = 1.0


class Fold:
    """Keeps the view up to date until it is closed."""

    def __init__(
        self,
        kafka: Log,
        connect: Callable[[], Wire],
        url: str,
        *,
        prefix: str = "",
        ttl_s: int = 30 * 24 * 3600,
    ) -> None:
        """``connect`` gives the Wire, asked for by the first step; may block; raises LogError."""
        self._log = kafka
        self._connect = connect
        self._decoder: Decoder | None = None
        self._client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5.0)
        self._prefix = prefix
        self._names = Names(prefix)
        self._ttl_s = ttl_s
        self._consumer: Consumer | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fold", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread, if it ends in a few seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(3.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except (exceptions.RedisError, LogError, OSError) as error:
                log.warning("folding waits error=%s", error)
                self._let_go()
                self._stop.wait(_PAUSE_S)
        self._let_go()
        self._client.close()

    def step(self) -> int:
        """Fold what has come since. Returns how many records. Raises RedisError, LogError."""
        if self._decoder is None:
            self._decoder = Decoder(self._log, self._connect(), prefix=self._prefix)
        if self._consumer is None:
            self._consumer = self._log.consumer(committed_only=True)
            self._resume(self._consumer)
        elif self._stored() != self._reached(self._consumer):
            log.warning("going on from the offsets in redis")
            self._resume(self._consumer)
        consumer = self._consumer
        before = self._reached(consumer)
        records = consumer.poll(_POLL_S)
        after = self._reached(consumer)
        if after == before:
            return 0
        pipe = self._client.pipeline(transaction=True)
        for record in records:
            self._fold(pipe, record)
        pipe.hset(self._names.offsets(), mapping={k: str(v) for k, v in after.items()})
        pipe.execute()
        for record in records:
            metrics.FOLDED.labels(record.topic.removeprefix(self._prefix)).inc()
        return len(records)

    def _resume(self, consumer: Consumer) -> None:
        stored = self._stored()
        positions: dict[tuple[str, int], int] = {}
        for topic in _TOPICS:
            name = named(topic, self._prefix)
            ends = self._log.ends(name)
            for partition, low in self._log.starts(name).items():
                offset = stored.get(f"{name}/{partition}", low)
                # Beyond the end: another cluster's offsets.
                offset = low if offset > ends[partition] else max(low, offset)
                positions[name, partition] = offset
        self._positions = positions
        consumer.assign(positions)
        self._client.hset(
            self._names.offsets(),
            mapping={f"{topic}/{partition}": str(o) for (topic, partition), o in positions.items()},
        )

    def _stored(self) -> dict[str, int]:
        found: Any = self._client.hgetall(self._names.offsets())
        return {name: int(offset) for name, offset in found.items()}

    def _reached(self, consumer: Consumer) -> dict[str, int]:
        return {f"{t}/{p}": consumer.position(t, p) for t, p in self._positions}

    def _fold(self, pipe: Any, record: LogRecord) -> None:
        assert self._decoder is not None
        try:
            event = self._decoder.decode(record)
        except InvalidRecord as error:
            metrics.FOLD_SKIPPED.labels(error.reason).inc()
            log.warning(
                "not folded topic=%s partition=%d offset=%d error=%s",
                record.topic,
                record.partition,
                record.offset,
                error,
            )
            return
        match event:
            case events.Receipt(stage="rewards") if event.subject_id:
                key = self._names.feedback(event.subject_id)
                fields = {
                    "outcome": event.outcome,
                    "reason": event.reason or "",
                    "trajectories": json.dumps(event.trajectories),
                }
                self._write(pipe, key, fields, event.outcome)
            case events.Receipt(stage="trainer") if event.subject_id:
                key = self._names.trajectory(event.subject_id)
                fields = {"outcome": event.outcome, "reason": event.reason or ""}
                if event.version is not None:
                    fields["version"] = str(event.version)
                if event.outcome == "superseded" and len(event.trajectories) > 1:
                    fields["successor"] = event.trajectories[1]
                self._write(pipe, key, fields, event.outcome)
            case events.ModelAck() if event.state in _SERVES and event.model:
                version = str(event.version)
                pipe.hsetnx(self._names.served(event.model), version, str(record.time_ms))
                pipe.zadd(self._names.versions(event.model), {version: event.version})

    def _write(self, pipe: Any, key: str, fields: dict[str, str], outcome: str) -> None:
        if outcome not in _REPEATS:
            pipe.hset(key, mapping=fields)
            pipe.expire(key, self._ttl_s)

    def _let_go(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
