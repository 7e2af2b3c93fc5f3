"""Engines: what they serve and how fast they answer. Pure.

In: acks and outputs. Out: :class:`~services.dashboard.system.Engines`.
"""

from __future__ import annotations

from collections import Counter, deque
import math

from services.dashboard.intervals import rounded
from services.dashboard.rate import Rate
from services.dashboard.settings import Settings
from services.dashboard.system import Engine, Engines
from tailrace.estimates import quantile
from tailrace.events import ModelAck, Output
from tailrace.versions import STALE_S

_ENGINES = 32
_HOUR_MS = 3_600_000
_MINUTE_S = 60
_NEWEST = 500


class _One:
    """One engine."""

    def __init__(self) -> None:
        self.ack: ModelAck | None = None
        self.time_ms = 0
        self.answers, self.tokens = Rate(_MINUTE_S), Rate(_MINUTE_S)
        self.ttft_ms: deque[float] = deque(maxlen=_NEWEST)
        self.errors = 0


class Fleet:
    """Feed it, then ask for the :meth:`section`."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self._model = settings.model
        self._drops = drops
        self._engines: dict[str, _One] = {}

    def ack(self, event: ModelAck, time_ms: int) -> None:
        """What an engine said."""
        if event.model in (None, self._model) and (one := self._one(event.engine, time_ms)):
            if event.state != "loaded" or one.ack is None:
                one.ack = event
            one.time_ms = max(one.time_ms, time_ms)

    def output(self, event: Output, time_ms: int) -> None:
        """An answer."""
        one = self._one(event.engine, time_ms) if event.engine else None
        if one is None:
            return
        if event.error is not None:
            one.errors += 1
            return
        one.answers.add(time_ms)
        if event.weight_versions:
            one.tokens.add(time_ms, max(0, event.weight_versions[-1].end))
        if event.ttft_ms is not None and math.isfinite(event.ttft_ms):
            one.ttft_ms.append(event.ttft_ms)

    def _one(self, name: str, time_ms: int) -> _One | None:
        one = self._engines.get(name)
        if one is None:
            if len(self._engines) >= _ENGINES:
                quiet = min(self._engines, key=lambda n: self._engines[n].time_ms)
                if self._engines[quiet].time_ms > time_ms - _HOUR_MS:
                    self._drops["engine beyond those that are listed"] += 1
                    return None
                del self._engines[quiet]
            one = self._engines[name] = _One()
            one.time_ms = time_ms
        return one

    def section(self, now_ms: int) -> Engines:
        """As it is now; ``now_ms`` by the dashboard's clock."""
        rows = []
        for name in sorted(self._engines):
            one = self._engines[name]
            if one.ack is None or now_ms - one.time_ms > _HOUR_MS:
                continue
            ttft_ms = sorted(one.ttft_ms)
            rows.append(
                Engine(
                    engine=name,
                    version=one.ack.version,
                    state=one.ack.state,
                    time_ms=one.time_ms,
                    stale=now_ms - one.time_ms > STALE_S * 1000,
                    reason=one.ack.reason,
                    answers_per_s=rounded(one.answers.per_s(now_ms), 3) or 0.0,
                    tokens_per_s=rounded(one.tokens.per_s(now_ms), 3) or 0.0,
                    ttft_p50_ms=rounded(quantile(ttft_ms, 0.5), 3),
                    ttft_p95_ms=rounded(quantile(ttft_ms, 0.95), 3),
                    errors=one.errors,
                )
            )
        return Engines(engines=rows)
