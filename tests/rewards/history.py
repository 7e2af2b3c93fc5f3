"""Histories of one partition, and ways to read them: any interleaving, kills, lost tails.

A :class:`History` is four logs as a broker would keep them, ticks included. :func:`read` drives
joins over it: the order between topics, the commits, the kills and how much of the unflushed
changelog and output survives them are drawn; each topic is read in order. What was sent is
compared by the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import random

import msgspec

from services.rewards.emission import DeadLetter, Out
from services.rewards.join import Join
from services.rewards.spec import Spec
from services.rewards.ticks import INPUTS
from tailrace import events, ids
from tailrace.errors import UnknownSchema
from tailrace.log.base import LogRecord

KINDS = (*INPUTS, "ticks")
START_MS = 1_700_000_000_000
SKEW_MS = 100
HOUR_MS = 3_600_000


def interaction_of(session: str, now_ms: int, number: int) -> str:
    """As :func:`tailrace.ids.new_interaction`, without its chance."""
    value = now_ms << 20 | number
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return f"{session}~{''.join(digits[value >> shift & 31] for shift in range(60, -1, -5))}"


class Item(msgspec.Struct):
    """A record of the log; ``refused``: no schema fits when it is first read, one does later."""

    record: LogRecord
    event: events.Struct
    refused: bool = False


class History:
    """Builds the logs of partition 0 along one clock."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.logs: dict[str, list[Item | None]] = {kind: [] for kind in KINDS}
        self._last_tick_ms = START_MS

    def append(self, kind: str, event: events.Struct, refused: bool = False) -> int:
        log = self.logs[kind]
        record = LogRecord(
            topic=kind,
            partition=0,
            offset=len(log),
            time_ms=self.now_ms,
            key=None,
            value=b"",
            headers={},
        )
        log.append(Item(record, event, refused))
        return record.offset

    def hole(self, kind: str) -> None:
        """A control record."""
        self.logs[kind].append(None)

    def tick(self, stale_ms: int = 0, first: bool = False) -> None:
        """What the clock of a worker writes; ``stale_ms``: it was slow, or is a zombie.

        ``first``: it was just assigned the partition and knows no time.
        """
        time_ms = 0 if first else self._last_tick_ms - SKEW_MS - stale_ms
        ends = {kind: len(self.logs[kind]) for kind in INPUTS}
        self._last_tick_ms = self.now_ms
        self.append("ticks", events.Tick(partition=0, event_time_ms=time_ms, ends=ends))

    def wait(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    def prompt(
        self,
        interaction: str,
        learn: bool = True,
        group_id: str | None = None,
        asked: str | None = None,
    ) -> None:
        self.append(
            "prompts",
            events.Prompt(
                interaction_id=interaction,
                session_id=ids.session_of(interaction),
                event_time_ms=self.now_ms,
                tenant="default",
                learn=learn,
                group_id=group_id,
                content=events.PromptContent(
                    messages=json.dumps([{"role": "user", "content": asked or interaction}])
                ),
            ),
        )

    def output(self, interaction: str, choice: int = 0, **fields: object) -> None:
        self.append(
            "outputs",
            events.Output(
                interaction_id=interaction,
                choice=choice,
                event_time_ms=self.now_ms,
                finish_reason="stop",
                content=events.OutputContent(message=f'{{"content": "to {interaction}"}}'),
                **fields,  # type: ignore[arg-type]
            ),
        )

    def feedback(self, subject: str, token: str, refused: bool = False, **fields: object) -> int:
        given = {"kind": "boolean", "metric": "thumbs", "boolean": True, **fields}
        if given.get("action") == "retract":
            given = fields
        where = "interaction_id" if ids.is_interaction(subject) else "session_id"
        return self.append(
            "feedback",
            events.Feedback(
                feedback_id=f"{subject}!{token}",
                event_time_ms=self.now_ms,
                tenant="default",
                **{where: subject},
                **given,  # type: ignore[arg-type]
            ),
            refused,
        )

    def settle(self, spec: Spec) -> None:
        """Let everything run out."""
        wait_s = spec.longest_wait_ms / 1000
        for seconds in (wait_s, spec.orphan_s, spec.orphan_s, wait_s, 1, 1, 1):
            self.wait(seconds + 1)
            self.tick()


class Result:
    """What was sent, each thing once if it was the same each time."""

    def __init__(self) -> None:
        self.trajectories: dict[str, set[bytes]] = {}
        self.receipts: dict[int, set[bytes]] = {}
        self.dead: set[tuple[str, int, str]] = set()

    def add(self, sent: list[Out]) -> None:
        for item in sent:
            if isinstance(item, DeadLetter):
                self.dead.add((item.record.topic, item.record.offset, item.reason))
                continue
            value = msgspec.msgpack.encode(item)
            if isinstance(item.record, events.Trajectory):
                self.trajectories.setdefault(item.record.trajectory_id, set()).add(value)
            else:
                self.receipts.setdefault(item.record.source.offset, set()).add(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and vars(self) == vars(other)

    def outcomes(self) -> dict[int, str]:
        found = {}
        for offset, values in self.receipts.items():
            assert len(values) == 1, f"feedback {offset} has receipts that differ"
            send = msgspec.msgpack.decode(next(iter(values)))
            found[offset] = send["record"]["outcome"]
        return found

    def revisions(self) -> list[events.Trajectory]:
        found = []
        for values in self.trajectories.values():
            assert len(values) == 1
            record = msgspec.msgpack.decode(next(iter(values)))["record"]
            found.append(msgspec.convert(record, events.Trajectory))
        return sorted(found, key=lambda t: (t.interaction_id, t.choice, t.revision))


class _Table:
    """A dict that writes down what is done to it."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = dict(values)
        self.changes: list[tuple[bytes, bytes | None]] = []

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def insert(self, key: bytes, value: bytes) -> None:
        assert key not in self.values, f"{key!r} was there"
        self.values[key] = value
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        del self.values[key]
        self.changes.append((key, None))


class Reader:
    """One worker after another over a history."""

    def __init__(self, history: History, spec: Spec) -> None:
        self._history, self._spec = history, spec
        self._durable: dict[bytes, bytes] = {}
        self._committed = dict.fromkeys(KINDS, 0)
        self._met: set[int] = set()
        self.result = Result()
        self.assign()

    def assign(self) -> None:
        self.table = _Table(self._durable)
        self.join = Join(self._spec, 0, 1, self.table)
        self.join.restore(list(self._durable.items()), self._committed)
        self._at = dict(self._committed)
        self._sent: list[Out] = []

    def readable(self) -> list[str]:
        return [kind for kind in KINDS if self._at[kind] < len(self._history.logs[kind])]

    def step(self, kind: str) -> None:
        """Deliver the next record of a topic (or learn that the rest of it is a gap)."""
        log, start = self._history.logs[kind], self._at[kind]
        at = start
        while at < len(log) and log[at] is None:
            at += 1
        self._at[kind] = at + 1 if at < len(log) else at
        if at == len(log):
            self._sent += self.join.on_gap(kind, self.join.positions[kind], at)
            return
        item = log[at]
        assert item is not None
        if item.refused and at not in self._met:
            self._met.add(at)
            out = self.join.on_refused(item.record, kind, UnknownSchema("0badc0de"))
            self._flush_table(len(self.table.changes))
            self._sent += out
            return
        self._sent += self.join.on_record(item.record, kind, item.event)

    def commit(self, share: Callable[[int, int], int]) -> None:
        """Flush everything, then commit some of each topic: ``share(low, high)`` draws."""
        self._flush_table(len(self.table.changes))
        self.result.add(self._sent)
        self._sent = []
        for kind in KINDS:
            self._committed[kind] = share(self._committed[kind], self.join.positions[kind])
        self.join.on_committed(self._committed)

    def kill(self, share: Callable[[int, int], int]) -> None:
        """Lose the tails of changelog and output that no commit waited for, each on its own."""
        self._flush_table(share(0, len(self.table.changes)))
        self.result.add(self._sent[: share(0, len(self._sent))])
        self.assign()

    def _flush_table(self, number: int) -> None:
        for key, value in self.table.changes[:number]:
            if value is None:
                self._durable.pop(key, None)
            else:
                assert self._durable.setdefault(key, value) == value, f"{key!r} was rewritten"
        del self.table.changes[:number]


def read_in_order(history: History, spec: Spec) -> Reader:
    """One worker, every record as it was appended."""
    reader = Reader(history, spec)
    times: Iterator[tuple[int, int, str]] = iter(
        sorted(
            (item.record.time_ms, KINDS.index(kind), kind)
            for kind in KINDS
            for item in history.logs[kind]
            if item is not None
        )
    )
    for _, _, kind in times:
        reader.step(kind)
    return finish(reader)


def read_wildly(history: History, spec: Spec, chance: random.Random) -> Reader:
    """Any order between topics, commits and kills at any place."""
    reader = Reader(history, spec)
    budget = 12  # kills
    while kinds := reader.readable():
        kind = chance.choice(kinds)
        for _ in range(chance.choice((1, 1, 2, 5, 30))):
            if kind in reader.readable():
                reader.step(kind)
        draw = chance.random()
        if draw < 0.2:
            reader.commit(chance.randint)
        elif draw < 0.35 and budget:
            budget -= 1
            reader.kill(chance.randint)
    return finish(reader)


def finish(reader: Reader) -> Reader:
    while kinds := reader.readable():
        reader.step(kinds[0])
    for kind in KINDS:
        end = len(reader._history.logs[kind])
        reader._sent += reader.join.on_gap(kind, reader.join.positions[kind], end)
    reader.commit(lambda low, high: high)
    return reader
