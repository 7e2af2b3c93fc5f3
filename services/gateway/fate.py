"""What became of a feedback: a view in Redis of what the log says, for ``GET /v1/feedback/{id}``.

The gateway itself notes what it accepted (so that the same id with another body is seen); all else
is folded from receipts, model updates and acks by :mod:`services.gateway.fold`. Everything here can
be rebuilt from Kafka, and nothing waits for it: where Redis is away, claims are ``unknown`` and
looking is refused. After a failed call Redis is left alone for a second.

Keys, under ``<prefix>tailrace:``: ``feedback:<id>`` and ``trajectory:<id>`` (hashes),
``served:<model>`` (version to log time) with ``versions:<model>`` (the versions, sorted).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
import json
import logging
from typing import Any, Literal, TypeVar, cast

from redis import exceptions
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.gateway import metrics
from tailrace.events import Feedback
from tailrace.feedback_json import same

log = logging.getLogger(__name__)
T = TypeVar("T")
Client = Any  # redis.asyncio.Redis, whose own types and stubs disagree
Claim = Literal["new", "begun", "accepted", "conflict", "unknown"]
"""Of an id: first seen; seen with the same body, not yet durable; durable; seen with another body;
Redis does not say."""
_TIMEOUT_S = 0.5
_REST_S = 1.0
_MOST_REVISIONS = 64
_TRAINED = ("trained", "compensated")


class Unavailable(Exception):
    """Redis is not there."""


class Names:
    """The keys of the view."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{prefix}tailrace:"

    def feedback(self, feedback_id: str) -> str:
        return f"{self._base}feedback:{feedback_id}"

    def trajectory(self, trajectory_id: str) -> str:
        return f"{self._base}trajectory:{trajectory_id}"

    def served(self, model: str) -> str:
        return f"{self._base}served:{model}"

    def versions(self, model: str) -> str:
        return f"{self._base}versions:{model}"

    def offsets(self) -> str:
        return f"{self._base}folded"


class Fate:
    """The view, from the gateway's event loop."""

    def __init__(
        self,
        url: str | None,
        *,
        prefix: str,
        model: str,
        ttl_s: int,
        now_s: Callable[[], float],
    ) -> None:
        """``url`` None: there is no Redis. ``now_s``: a monotonic clock."""
        self._client: Client = (
            None
            if url is None
            else redis.asyncio.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),
            )
        )
        self._names = Names(prefix)
        self._model = model
        self._ttl_s = ttl_s
        self._now_s = now_s
        self._rests_until_s = 0.0

    async def claim_all(self, records: Sequence[Feedback]) -> list[Claim]:
        """Whether each id was seen, in one round trip. The ids differ."""
        marks = [same(record).hex() for record in records]

        async def call(client: Client) -> list[Any]:
            pipe = client.pipeline(transaction=True)
            for record, mark in zip(records, marks, strict=True):
                key = self._names.feedback(record.feedback_id)
                pipe.hsetnx(key, "digest", mark)
                pipe.hmget(key, ["digest", "accepted"])
                pipe.expire(key, self._ttl_s)
            return cast(list[Any], await pipe.execute())

        try:
            answers = await self._call("claim", call)
        except Unavailable:
            return ["unknown"] * len(records)
        triples = zip(answers[::3], answers[1::3], marks, strict=True)
        return [_claim(bool(first), known, mark) for first, known, mark in triples]

    async def accepted(self, records: Sequence[Feedback], now_ms: int) -> None:
        """Note that these are durable. Says nothing when Redis is away."""

        async def call(client: Client) -> None:
            pipe = client.pipeline(transaction=False)
            for record in records:
                key = self._names.feedback(record.feedback_id)
                pipe.hset(key, mapping={"digest": same(record).hex(), "accepted": str(now_ms)})
                pipe.expire(key, self._ttl_s)
            await pipe.execute()

        try:
            await self._call("accepted", call)
        except Unavailable:
            pass

    async def release(self, records: Sequence[Feedback]) -> None:
        """Forget claims of what could not be kept: it may come again, changed."""

        async def call(client: Client) -> None:
            pipe = client.pipeline(transaction=False)
            for record in records:
                pipe.hdel(self._names.feedback(record.feedback_id), "digest")
            await pipe.execute()

        try:
            await self._call("release", call)
        except Unavailable:
            pass

    async def look(self, feedback_id: str) -> dict[str, Any] | None:
        """What became of a feedback, as JSON; None when nothing is known of it.

        Raises Unavailable.
        """
        return await self._call("look", lambda client: self._look(client, feedback_id))

    async def _look(self, client: Client, feedback_id: str) -> dict[str, Any] | None:
        found = await _await(client.hgetall(self._names.feedback(feedback_id)))
        if "outcome" not in found and "accepted" not in found:
            return None
        trajectories: dict[str, dict[str, Any]] = {}
        for trajectory_id in json.loads(found.get("trajectories", "[]")):
            await self._follow(client, trajectory_id, trajectories)
        trained = min(
            (t["version"] for t in trajectories.values() if t["outcome"] in _TRAINED), default=None
        )
        since_ms = None if trained is None else await self._serving_since(client, trained)
        return {
            "feedback_id": feedback_id,
            "outcome": found.get("outcome", "pending"),
            "reason": found.get("reason") or None,
            "trajectories": list(trajectories.values()),
            "trained_version": trained,
            "serving_since_ms": since_ms,
            "serving_since": None if since_ms is None else _iso(since_ms),
        }

    async def _follow(
        self, client: Client, trajectory_id: str | None, into: dict[str, dict[str, Any]]
    ) -> None:
        """Add a trajectory, and the revisions that took its place before it was trained."""
        for _ in range(_MOST_REVISIONS):
            if trajectory_id is None or trajectory_id in into:
                return
            known = await _await(client.hgetall(self._names.trajectory(trajectory_id)))
            outcome, version = known.get("outcome", "pending"), known.get("version")
            # Of an earlier outcome, where a fork decided again.
            successor = known.get("successor") if outcome == "superseded" else None
            into[trajectory_id] = {
                "trajectory_id": trajectory_id,
                "outcome": outcome,
                "reason": known.get("reason") or None,
                "version": None if version is None else int(version),
                "superseded_by": successor,
            }
            trajectory_id = successor

    async def _serving_since(self, client: Client, version: int) -> int | None:
        # An engine may skip versions: the first one at or above serves what this one learned.
        later = await _await(
            client.zrangebyscore(self._names.versions(self._model), version, "+inf", 0, 64)
        )
        if not later:
            return None
        times = await _await(client.hmget(self._names.served(self._model), later))
        return min((int(t) for t in times if t is not None), default=None)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _call(self, use: str, work: Callable[[Client], Awaitable[T]]) -> T:
        if self._client is None or self._now_s() < self._rests_until_s:
            raise Unavailable
        try:
            return await work(self._client)
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            self._rests_until_s = self._now_s() + _REST_S
            metrics.REDIS_ERRORS.labels(use).inc()
            log.warning("redis failed use=%s error=%r", use, error)
            raise Unavailable from None


def _claim(first: bool, known: list[str | None], mark: str) -> Claim:
    said, accepted = known
    if said != mark:
        return "conflict"
    return "accepted" if accepted else "new" if first else "begun"


async def _await(value: Any) -> Any:
    # redis-py types each command as "result or awaitable of it".
    return await value


def _iso(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
