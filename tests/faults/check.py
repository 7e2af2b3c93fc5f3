"""What a log should have come to, beside what it came to.

:func:`expected` runs the join over the inputs and ticks that lie on the log, in one go, with no
fault and no restart: the fault-free run on the same log. :func:`compare` holds the log's own
trajectories and receipts against it, record by record and byte by byte. Called by the tests here
and by :mod:`benchmarks.faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import time

import msgspec

from services.rewards import offline
from services.rewards.emission import Send
from services.rewards.join import KINDS
from services.rewards.offline import Read
from services.rewards.spec import Spec
from tailrace import events, topics
from tailrace.errors import InvalidRecord
from tailrace.log.base import Log
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire

Place = tuple[int, int]


class Outcome(msgspec.Struct):
    """Encoded records: trajectories by id, rewards' receipts by the feedback's place; the reasons
    of dead letters by their source."""

    trajectories: dict[str, set[bytes]] = {}
    receipts: dict[Place, set[bytes]] = {}
    letters: dict[str, set[bytes]] = {}


class Account(msgspec.Struct, kw_only=True):
    """One comparison."""

    feedback: int
    """Records on the topic, readable or not."""
    lost: int
    """Feedback without a receipt."""
    conflicts: int
    """Feedback with receipts, or trajectory ids with records, that differ."""
    trajectories: int
    differences: list[str]
    """Trajectories and receipts that the fault-free run does not have, or has otherwise."""
    settled: bool
    """Whether the newest ticks lie far enough behind the newest records for all to be decided."""

    @property
    def trajectories_equal(self) -> bool:
        return not self.differences

    @property
    def good(self) -> bool:
        return self.settled and not (self.lost or self.conflicts or self.differences)


def compare(log: Log, prefix: str, spec: Spec) -> Account:
    """Recount now. The inputs are fixed first, so what is still being said shows as lost."""
    logs = inputs(log, prefix)
    wanted, found = expected(logs, spec), _found(log, prefix)
    places = {(read[0].partition, read[0].offset) for p in logs.values() for read in p["feedback"]}
    wire, differences = Wire(), list[str]()
    for name in ("trajectories", "receipts", "letters"):
        right, ours = getattr(wanted, name), getattr(found, name)
        for key in sorted(right.keys() | ours.keys()):
            if right.get(key) != ours.get(key):
                said = [_said(name, values, key, wire) for values in (ours, right)]
                differences.append(f"{name} {key}: {said[0]}, not {said[1]}")
    all_said = [*found.receipts.values(), *found.trajectories.values()]
    return Account(
        feedback=len(places),
        lost=len(places - found.receipts.keys()),
        conflicts=sum(len(values) > 1 for values in all_said),
        trajectories=len(found.trajectories),
        differences=differences,
        settled=all(_settled(partition, spec) for partition in logs.values()),
    )


def await_good(
    log: Log, prefix: str, spec: Spec, alive: Callable[[], None], timeout_s: float = 60.0
) -> Account:
    """Recount until nothing is missing. ``alive`` is called in between (it may start what died)."""
    until = time.monotonic() + timeout_s
    while not (account := compare(log, prefix, spec)).good and time.monotonic() < until:
        alive()
        time.sleep(0.3)
    return account


def expected(logs: Mapping[int, Mapping[str, Iterable[Read]]], spec: Spec) -> Outcome:
    """What one worker says that reads every record once."""
    wire, outcome = Wire(), Outcome()
    for partition, kinds in logs.items():
        for out in offline.run(spec, partition, len(logs), kinds):
            if isinstance(out, Send):
                _take(outcome, out.record, wire.encode(out.record))
            else:
                where = f"{out.record.topic}/{out.record.partition}/{out.record.offset}"
                outcome.letters.setdefault(where, set()).add(out.reason.encode())
    return outcome


def inputs(log: Log, prefix: str) -> dict[int, dict[str, list[Read]]]:
    """What lies on the four topics, by partition and kind."""
    decoder = Decoder(log, Wire(), prefix=prefix)
    logs: dict[int, dict[str, list[Read]]] = {}
    for kind in KINDS:
        for partition in range(log.partitions(prefix + kind)):
            logs.setdefault(partition, {})[kind] = []
        for record in read_all(log, prefix + kind):
            try:
                decoded: events.Struct | InvalidRecord = decoder.decode(record)
            except InvalidRecord as error:
                decoded = error
            logs[record.partition][kind].append((record, decoded))
    return logs


def _found(log: Log, prefix: str) -> Outcome:
    wire, outcome = Wire(), Outcome()
    for topic in (topics.TRAJECTORIES, topics.RECEIPTS):
        assert topic.record is not None
        for record in read_all(log, named(topic, prefix)):
            assert record.value is not None
            _take(outcome, wire.decode(topic.record, record.value), record.value)
    for record in read_all(log, named(topics.DEAD_LETTERS, prefix)):
        where = record.headers["tailrace-source"].decode()
        outcome.letters.setdefault(where, set()).add(record.headers["tailrace-reason"])
    return outcome


def _take(outcome: Outcome, record: events.Struct, value: bytes) -> None:
    if isinstance(record, events.Trajectory):
        outcome.trajectories.setdefault(record.trajectory_id, set()).add(value)
    elif isinstance(record, events.Receipt) and record.stage == "rewards":
        place = (record.source.partition, record.source.offset)
        outcome.receipts.setdefault(place, set()).add(value)


def _settled(kinds: Mapping[str, list[Read]], spec: Spec) -> bool:
    newest_ms = max((r.time_ms for k in KINDS[:3] for r, _ in kinds[k]), default=0)
    ticked_ms = max(
        (t.event_time_ms for _, t in kinds["ticks"] if isinstance(t, events.Tick)), default=0
    )
    return ticked_ms > newest_ms + spec.longest_wait_ms + spec.orphan_ms


def _said(name: str, values: Mapping[object, set[bytes]], key: object, wire: Wire) -> object:
    if name == "letters":
        return values.get(key)
    record = events.Trajectory if name == "trajectories" else events.Receipt
    return [wire.decode(record, value) for value in values.get(key, ())] or None
