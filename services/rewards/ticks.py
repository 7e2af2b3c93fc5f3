"""The ticks of one partition: which wait, which acted, and which the committed offsets have passed.

A tick that must wait is kept in the store, because its offset may be committed before it acts.
After it acted, its verdicts are kept at hand until the committed offsets lie past it and past
everything it waited for; until then an assignment makes it act, and emit, again. Pure; used by the
join.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
import heapq

import msgspec

from services.rewards import facts
from services.rewards.facts import Verdict, key_of
from tailrace.events import Tick

INPUTS = ("prompts", "outputs", "feedback")


class Ticks:
    """``positions`` and ``committed`` are the join's own and change under this."""

    def __init__(
        self,
        partition: int,
        store: facts.Store,
        positions: Mapping[str, int],
        committed: Mapping[str, int],
    ) -> None:
        self.verdicts: dict[int, list[Verdict]] = {}
        """Parts by tick offset, of ticks that may have to emit again."""
        self._partition = partition
        self._store = store
        self._positions = positions
        self._committed = committed
        self._waiting: dict[int, Tick] = {}
        self._queue: list[int] = []
        """Heap of the offsets of ``_waiting``."""
        self._stored: set[int] = set()
        self._acted: dict[int, Tick] = {}
        self._doomed: deque[tuple[int, Tick, list[bytes]]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def restore(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Take up stored ticks, in log order, once positions and verdicts are restored."""
        passed_so_far = True
        for offset, value in items:
            tick = msgspec.msgpack.decode(value, type=Tick)
            self._stored.add(offset)
            # A tick behind an unmet one has not acted, whatever its own ends say.
            passed_so_far = passed_so_far and self._passed(offset, tick)
            if passed_so_far:
                self._acted[offset] = tick
            else:
                self._wait(offset, tick)
        for offset in list(self.verdicts):
            if offset < self._committed["ticks"] and offset not in self._waiting:
                del self.verdicts[offset]

    def add(self, offset: int, tick: Tick) -> None:
        """A tick was read."""
        first = not self._queue or self._queue[0] >= offset
        if offset not in self._stored and not (first and self._lacks(tick) is None):
            self._stored.add(offset)
            self._store.insert(key_of(self._partition, "ticks", offset), facts.encode(tick))
        self._wait(offset, tick)

    def ready(self) -> Iterator[tuple[int, Tick]]:
        """Ticks that may act now, in log order."""
        while self._queue:
            offset = self._queue[0]
            tick = self._waiting[offset]
            if self._positions["ticks"] <= offset or self._lacks(tick) is not None:
                return
            heapq.heappop(self._queue)
            del self._waiting[offset]
            yield offset, tick

    def waits_for(self) -> tuple[str, int, int] | None:
        """What the first waiting tick lacks: kind, position and end; None: nothing waits."""
        if not self._queue:
            return None
        tick = self._waiting[self._queue[0]]
        kind = self._lacks(tick)
        return None if kind is None else (kind, self._positions[kind], tick.ends[kind])

    def acted(self, offset: int, tick: Tick, parts: list[Verdict]) -> None:
        """Keep what a tick decided, if anything, until it is passed."""
        if parts:
            self.verdicts[offset] = parts
            self._acted[offset] = tick
        else:
            self._forget(offset)

    def doom(self, offset: int, tick: Tick, keys: list[bytes]) -> None:
        """Have table keys deleted once this tick is passed: no tick up to it needs them then."""
        if keys:
            self._doomed.append((offset, tick, keys))

    def collect(self) -> list[bytes]:
        """Drop what the committed offsets have passed. Gives the keys to delete now."""
        for offset, tick in list(self._acted.items()):
            if not self._passed(offset, tick):
                break
            del self._acted[offset]
            self.verdicts.pop(offset, None)
            self._forget(offset)
        keys: list[bytes] = []
        while self._doomed:
            offset, tick, found = self._doomed[0]
            oldest = min(self._acted, default=offset + 1)
            if oldest <= offset or not self._passed(offset, tick):
                break
            keys += found
            self._doomed.popleft()
        return keys

    def _wait(self, offset: int, tick: Tick) -> None:
        if offset not in self._waiting:
            self._waiting[offset] = tick
            heapq.heappush(self._queue, offset)

    def _lacks(self, tick: Tick) -> str | None:
        for kind in INPUTS:
            if self._positions[kind] < tick.ends[kind]:
                return kind
        return None

    def _passed(self, offset: int, tick: Tick) -> bool:
        """Whether the committed offsets lie past the tick and all that it waited for."""
        return self._committed["ticks"] > offset and all(
            self._committed[kind] >= tick.ends[kind] for kind in INPUTS
        )

    def _forget(self, offset: int) -> None:
        if offset in self._stored:
            self._stored.remove(offset)
            self._store.delete(key_of(self._partition, "ticks", offset))
