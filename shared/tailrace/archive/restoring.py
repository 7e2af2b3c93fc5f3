"""Brings an archive back under a new prefix, each record at its own offset.

First all of the archive is read and verified, and whether it can be laid; then it is written; then
what is on the log is read back and held against the archive. A run that was killed is gone on with
from what the topics hold. Append times are the broker's, so the original ones are in the header of
each record, as in a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
import time

import msgspec

from tailrace import topics
from tailrace.archive.layout import Act, acts, begun
from tailrace.archive.segment import Saved
from tailrace.archive.shelf import BrokenArchive, Manifest, Partition, Shelf
from tailrace.errors import LogError
from tailrace.log.base import Log, LogRecord, Position, Producer
from tailrace.replaying.plan import (
    SOURCE,
    TIME,
    Done,
    Plan,
    begin,
    end,
    found,
    vacant,
)
from tailrace.stream import publish_schemas, read_all
from tailrace.topics import Topic, named

_FLUSH = 5_000
_END_S = 30.0


class Restored(msgspec.Struct, kw_only=True):
    """What is under the prefix."""

    records: dict[str, int] = {}
    """By topic."""
    voids: int = 0
    """Offsets that were made again as gaps."""


class Restorer:
    """One restore. ``resume``: go on with what is there."""

    def __init__(
        self,
        log: Log,
        prefix: str,
        shelf: Shelf,
        *,
        resume: bool = False,
        registry: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._log, self._prefix, self._shelf = log, prefix, shelf
        self._resume, self._registry, self._say = resume, registry, say
        self.restored = Restored()

    def run(self) -> Restored:
        """Raises BrokenArchive, ValueError for what cannot be laid or is taken, LogError, OSError.
        Until the first two are out of question nothing is written."""
        manifest = self._shelf.manifest()
        if manifest is None:
            raise BrokenArchive(f"{self._shelf.url} holds no archive")
        for topic, number, part in _parts(manifest):
            where = f"{topic.name}/{number}"
            for _ in acts(where, part, self._shelf.read(part), transactional=topic.transactional):
                pass
            if part.lost:
                self._say(
                    f"{where} begins at {part.lost[-1][1]}: what came right before expired before "
                    "it was archived"
                )
        self._begin(manifest)
        self._schemas(manifest)
        for topic, number, part in _parts(manifest):
            self._partition(manifest, topic, number, part)
            self._say(f"{topic.name}/{number}: {part.end}")
        for topic, number, part in _parts(manifest):
            self._check(manifest, topic, number, part, part.end)
        end(self._log, self._prefix, Done(records=self.restored.records, left_out={}))
        return self.restored

    def _begin(self, manifest: Manifest) -> None:
        plan = Plan(
            kind="restore",
            source=self._shelf.url,
            partitions=len(manifest.topics.get(topics.PROMPTS.name, {0: None})),
        )
        if not self._resume:
            vacant(self._log, self._prefix)
            begin(self._log, self._prefix, plan)
            return
        there = found(self._log, self._prefix)[0]
        if there is None or there.kind != "restore" or there.source != plan.source:
            raise ValueError(f"prefix {self._prefix!r} holds no restore of {plan.source}")

    def _schemas(self, manifest: Manifest) -> None:
        """What schemas say, nobody refers to where."""
        producer = self._log.producer()
        name = named(topics.SCHEMAS, self._prefix)
        try:
            for part in manifest.topics.get(topics.SCHEMAS.name, {}).values():
                for record in self._shelf.read(part):
                    producer.append(name, record.value, key=record.key)
            producer.flush()
        finally:
            producer.close()
        if self._registry is None:
            publish_schemas(self._log, prefix=self._prefix)

    def _partition(self, manifest: Manifest, topic: Topic, number: int, part: Partition) -> None:
        name = named(topic, self._prefix)
        there = self._log.ends(name)[number]
        if there > part.end:
            raise LogError(f"{name}/{number} ends at {there}, the archive at {part.end}")
        if there:
            self._check(manifest, topic, number, part, there)
        lane = _Lane(self._log, name, number, there, self._header(manifest, topic))
        gone = 0
        try:
            records = self._shelf.read(part)
            for act in acts(name, part, records, transactional=topic.transactional):
                if act.what in ("void", "abort") and act.end > there:
                    self.restored.voids += act.end - max(act.start, there)
                lane.act(act)
                if act.what == "void":
                    gone = act.end
            lane.flush()
        finally:
            lane.close()
        if gone:
            self._log.delete_before(name, {number: gone})

    def _check(
        self, manifest: Manifest, topic: Topic, number: int, part: Partition, to: int
    ) -> None:
        """Hold a partition against the archive, below an offset. Raises LogError."""
        name = named(topic, self._prefix)
        header = self._header(manifest, topic)
        ends = {p: to if p == number else 0 for p in self._log.ends(name)}
        there = (
            record
            for record in read_all(self._log, name, ends=ends, committed_only=topic.transactional)
            if record.key is not None or record.value is not None or record.headers
        )
        count = 0
        for saved in begun(part, self._shelf.read(part)):
            if saved.offset >= to:
                break
            record = next(there, None)
            if record is None or not _same(record, saved, header(saved)):
                raise LogError(
                    f"{name}/{number}/{saved.offset} is not what the archive has: delete the "
                    "topics of this prefix, or restore to another"
                )
            count += 1
        if next(there, None) is not None:
            raise LogError(f"{name}/{number} holds a record that the archive has not")
        if to == part.end:
            self.restored.records[topic.name] = self.restored.records.get(topic.name, 0) + count

    def _header(self, manifest: Manifest, topic: Topic) -> Callable[[Saved], dict[str, bytes]]:
        """The headers of a record under the new prefix."""

        def headers(saved: Saved) -> dict[str, bytes]:
            made = dict(saved.headers)
            if topic is topics.DEAD_LETTERS:  # its own headers say when and where: of the prefix
                source = made.get(SOURCE, b"").decode(errors="replace")
                if SOURCE in made and source.startswith(manifest.prefix):
                    made[SOURCE] = (self._prefix + source[len(manifest.prefix) :]).encode()
            elif not (manifest.copy and TIME in made):
                made[TIME] = b"%d" % saved.time_ms
            return made

        return headers


class _Lane:
    """Writes one partition from where it ends."""

    def __init__(
        self,
        log: Log,
        topic: str,
        partition: int,
        there: int,
        headers: Callable[[Saved], dict[str, bytes]],
    ) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self._there, self._headers = there, headers
        self._plain = log.producer()
        self._transactions: Producer | None = None
        self._waiting: list[tuple[int, Future[Position]]] = []

    def act(self, act: Act) -> None:
        """Do what is not there yet. Raises LogError."""
        if act.end <= self._there:
            return
        if act.what == "put":
            self._put(self._plain, act.start, act.record)
        elif act.what == "void":
            for offset in range(max(act.start, self._there), act.end):
                self._put(self._plain, offset, None)
        else:
            if act.start < self._there:
                raise LogError(
                    f"{self._topic}/{self._partition} ends at {self._there}, within a "
                    "transaction: delete the topics of this prefix, or restore to another"
                )
            self.flush()
            if self._transactions is None:
                name = f"{self._topic}-{self._partition}-restore"
                self._transactions = self._log.producer(transactional_id=name)
            self._transactions.begin()
            for offset in range(act.start, act.end - 1):
                self._put(self._transactions, offset, act.record)
            self._checked(self._transactions)
            if act.what == "commit":
                self._transactions.commit()
            else:
                self._transactions.abort()
            self._reach(act.end)

    def flush(self) -> None:
        """Wait for what was put, each at its offset. Raises LogError."""
        self._checked(self._plain)

    def close(self) -> None:
        """Let go of the producers."""
        self._plain.close()
        if self._transactions is not None:
            self._transactions.close()

    def _put(self, producer: Producer, offset: int, record: Saved | None) -> None:
        future = producer.append(
            self._topic,
            None if record is None else record.value,
            key=None if record is None else record.key,
            partition=self._partition,
            headers={} if record is None else self._headers(record),
        )
        self._waiting.append((offset, future))
        if len(self._waiting) >= _FLUSH:
            self._checked(producer)

    def _checked(self, producer: Producer) -> None:
        producer.flush(90.0)
        for offset, future in self._waiting:
            at = future.result(0).offset
            if at != offset:
                raise LogError(
                    f"{self._topic}/{self._partition}: offset {offset} came to lie at {at}: "
                    "somebody else writes there"
                )
        self._waiting.clear()

    def _reach(self, end: int) -> None:
        """Wait for the control record: the broker writes it after it answered."""
        deadline = time.monotonic() + _END_S
        while (at := self._log.ends(self._topic)[self._partition]) < end:
            if time.monotonic() > deadline:
                raise LogError(f"{self._topic}/{self._partition} ends at {at}, not at {end}")
            time.sleep(0.002)


def _parts(manifest: Manifest) -> Iterator[tuple[Topic, int, Partition]]:
    for topic in topics.TOPICS:
        if topic is not topics.SCHEMAS:
            for number, part in sorted(manifest.topics.get(topic.name, {}).items()):
                if part.end:
                    yield topic, number, part


def _same(record: LogRecord, saved: Saved, headers: dict[str, bytes]) -> bool:
    return (
        record.offset == saved.offset
        and record.key == saved.key
        and record.value == saved.value
        and record.headers == headers
    )
