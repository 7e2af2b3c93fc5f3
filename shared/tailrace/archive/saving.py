"""Writes what is new of a prefix into an archive, partition by partition.

In: a log, what the manifest says is there. Out: segments, each of them in the manifest as soon as
it is whole, so a run that is killed is gone on with by the next. Topics in transactions are read
committed, up to the first open one.

A run ends on one cut, as an audit's reading does (:mod:`tailrace.recount`): releases come first,
then the manifests that they name, then the ends of everything else are fixed, subjects before their
receipts, and nothing beyond them is read. So whatever a manifest or a receipt names is there.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tailrace import topics
from tailrace.archive import segment
from tailrace.archive.shelf import BrokenArchive, Manifest, Partition, Segment, Shelf
from tailrace.errors import InvalidRecord, LogError, MissingTopic
from tailrace.events import ModelUpdate
from tailrace.log.base import Log, LogRecord
from tailrace.recount import SUBJECTS_FIRST
from tailrace.replaying.plan import found
from tailrace.stream import Decoder
from tailrace.topics import Topic, named
from tailrace.wire import Wire

_POLL_S = 0.5
_DECISIONS = (topics.RELEASES, topics.MODEL_UPDATES)
_REST = tuple(t for t in topics.TOPICS if t not in (*_DECISIONS, *SUBJECTS_FIRST))


class Kept(msgspec.Struct, kw_only=True):
    """What one run did."""

    records: int = 0
    """New in the archive."""
    bytes: int = 0
    """Their size there."""
    segments: int = 0
    open: list[str] = []
    """Partitions (``receipts/0``) that end at a transaction which was open."""
    lost: list[str] = []
    """Places (``feedback/0/120..180``) that expired before they were archived, ever."""
    elsewhere: int = 0
    """New manifests whose weights are at a ``uri``: those are not in the archive."""


class Saver:
    """One run. ``stalled_s``: how long nothing may come before the end of a topic."""

    def __init__(
        self,
        log: Log,
        prefix: str,
        shelf: Shelf,
        *,
        segment_bytes: int = segment.SEGMENT_BYTES,
        stalled_s: float = 60.0,
        open_s: float = 5.0,
        registry: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._log, self._prefix, self._shelf = log, prefix, shelf
        self._segment_bytes, self._say = segment_bytes, say
        self._stalled_s, self._open_s = stalled_s, open_s
        self._decoder = Decoder(log, Wire(registry), prefix=prefix)
        self.kept = Kept()

    def run(self) -> Kept:
        """Archive up to the ends of now. Raises BrokenArchive, where the archive is of another log
        too, LogError, OSError."""
        manifest = self._shelf.manifest()
        if manifest is None:
            copy = found(self._log, self._prefix)[0] is not None
            manifest = Manifest(prefix=self._prefix, copy=copy)
        if manifest.prefix != self._prefix:
            raise BrokenArchive(
                f"{self._shelf.url} holds prefix {manifest.prefix!r}, not {self._prefix!r}"
            )
        for topic in _DECISIONS:
            self._topic(manifest, topic, self._ends(topic))
        cut = {topic.name: self._ends(topic) for topic in (*SUBJECTS_FIRST, *_REST)}
        for topic in (*SUBJECTS_FIRST, *_REST):
            self._topic(manifest, topic, cut[topic.name])
        self._shelf.keep(manifest)
        for name, parts in manifest.topics.items():
            for number, part in parts.items():
                self.kept.lost += [f"{name}/{number}/{a}..{b}" for a, b in part.lost]
        return self.kept

    def _ends(self, topic: Topic) -> dict[int, int]:
        """Of now; none: there is no such topic."""
        try:
            return self._log.ends(named(topic, self._prefix))
        except MissingTopic:
            return {}

    def _topic(self, manifest: Manifest, topic: Topic, ends: dict[int, int]) -> None:
        if not ends:
            return
        low = self._log.starts(named(topic, self._prefix))
        parts = manifest.topics.setdefault(topic.name, {})
        for number, end in sorted(ends.items()):
            if number not in parts:
                parts[number] = Partition(start=low[number], end=low[number])
            # All of it may have expired since its end was fixed.
            self._partition(manifest, topic, number, low[number], max(end, low[number]))

    def _partition(
        self, manifest: Manifest, topic: Topic, number: int, low: int, high: int
    ) -> None:
        part = manifest.topics[topic.name][number]
        where = f"{self._prefix}{topic.name}/{number}"
        if high < part.end:
            raise BrokenArchive(f"{where} ends at {high}, the archive has {part.end}: another log")
        if low > part.end:
            part.lost.append((part.end, low))
            part.end = low
        if high == part.end:
            return
        # The last record is read again: by it the log is known.
        known = part.last if part.last is not None and part.last >= low else None
        start = part.end if known is None else known
        key = (self._prefix + topic.name, number)
        consumer = self._log.consumer(committed_only=topic.transactional)
        text: list[bytes] = []
        size, quiet_s = 0, 0.0
        try:
            consumer.assign({key: start})
            while (at := consumer.position(*key)) < high:
                records = consumer.poll(_POLL_S, 5_000)
                moved = consumer.position(*key) > at
                quiet_s = 0.0 if moved or records else quiet_s + _POLL_S
                if topic.transactional and quiet_s >= self._open_s:
                    self.kept.open.append(f"{topic.name}/{number}")
                    break
                if quiet_s >= self._stalled_s:
                    raise LogError(f"{where}: does not reach its end")
                for record in records:
                    if record.offset >= high:
                        break
                    packed = segment.packed(record)
                    if record.offset < part.end:
                        if segment.sha256(packed) != part.last_sha256:
                            raise BrokenArchive(
                                f"{where}/{record.offset} is another record than in the archive: "
                                "another log"
                            )
                        continue
                    self.kept.elsewhere += topic is topics.MODEL_UPDATES and self._away(record)
                    text.append(packed)
                    size += len(packed)
                    part.last = record.offset
                    if size >= self._segment_bytes:
                        self._close(manifest, topic, number, text, record.offset + 1)
                        text, size = [], 0
            end = min(high, consumer.position(*key))
            self._close(manifest, topic, number, text, max(part.end, end))
        finally:
            consumer.close()

    def _away(self, record: LogRecord) -> bool:
        """Whether a manifest names a place that is no topic."""
        try:
            update = self._decoder.decode(record)
        except (InvalidRecord, MissingTopic):
            return False
        return isinstance(update, ModelUpdate) and update.uri is not None

    def _close(
        self, manifest: Manifest, topic: Topic, number: int, text: list[bytes], end: int
    ) -> None:
        """Store what was read of a partition, and say so in the manifest."""
        part = manifest.topics[topic.name][number]
        if text:
            body = b"".join(text)
            name = f"{topic.name}/{number}/{part.end:020}-{segment.sha256(body)[:8]}.zst"
            size, mark = self._shelf.add(name, body)
            made = Segment(
                name=name, start=part.end, end=end, records=len(text), bytes=size, sha256=mark
            )
            part.segments.append(made)
            part.last_sha256 = segment.sha256(text[-1])
            self.kept.records += len(text)
            self.kept.bytes += size
            self.kept.segments += 1
        part.end = end
        if text:
            self._shelf.keep(manifest)
            self._say(f"{topic.name}/{number}: to {end}, {self.kept.records} records")
