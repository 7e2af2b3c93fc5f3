"""What a keyframe costs the trainer: it deletes by what is new on the log, and never ends by it."""

from __future__ import annotations

from collections import Counter

import pytest

from tailrace import topics
from tailrace.errors import LogError
from tailrace.events import ModelUpdate, Range, Release
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryConsumer, MemoryLog
from tailrace.stream import Writer
from tailrace.wire import MARKER
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, trained


class WatchedLog(MemoryLog):
    """Counts what consumers were given, by topic; ``away``: topics that do not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()
        self.away: set[str] = set()

    def ends(self, topic: str) -> dict[int, int]:
        if topic in self.away:
            raise LogError(f"{topic}: no answer")
        return super().ends(topic)

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> MemoryConsumer:
        return _WatchedConsumer(self, group, committed_only)


class _WatchedConsumer(MemoryConsumer):
    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        records = super().poll(timeout_s, max_records)
        assert isinstance(self._log, WatchedLog)
        self._log.read.update(record.topic for record in records)
        return records


def _low(channel: Channel) -> int:
    return channel.log.starts(topics.MODEL_CHUNKS.name)[0]


def _offset(update: ModelUpdate) -> int:
    assert update.chunks is not None
    return update.chunks.offsets[0]


def _release(channel: Channel, live: int) -> None:
    writer = Writer(channel.log.producer(), channel.wire, source="test")
    release = Release(model=MODEL, event_time_ms=1, live=live, withdrawn_to=live)
    writer.write(topics.RELEASES, release).result(10)


def test_a_keyframe_reads_what_came_since_the_last_one() -> None:
    log = WatchedLog()
    channel = Channel(log, "")
    other = channel.publisher("other")
    publisher = channel.publisher()
    update = channel.keyframe(publisher, 0, model())
    for version in range(1, 20):
        update = channel.delta(publisher, version, trained(model(), version), update)
        _release(channel, version)
    update = channel.keyframe(publisher, 20, model(20), update)
    channel.keyframe(other, 0, model(), model="other")
    log.read.clear()
    channel.keyframe(publisher, 21, model(21), update)
    # The other model's, the own one just published, and that of the keyframe before at most.
    assert log.read[topics.MODEL_UPDATES.name] <= 3 and not log.read[topics.RELEASES.name]
    channel.close()


def test_a_model_with_one_keyframe_keeps_its_own_chunks_alone() -> None:
    channel = Channel(MemoryLog(), "")
    publisher, other = channel.publisher(), channel.publisher("other")
    updates = [channel.keyframe(publisher, 0, model())]
    small = channel.keyframe(other, 0, model(), model="other")
    for version in range(1, 5):
        updates.append(channel.keyframe(publisher, version, model(version), updates[-1]))
    assert _offset(updates[0]) < _low(channel) == _offset(small) < _offset(updates[1])
    assert other.retained(0) and not publisher.retained(0)
    channel.close()


def test_a_log_that_is_away_after_the_commit_does_not_end_the_trainer() -> None:
    for topic in (topics.MODEL_UPDATES, topics.RELEASES):
        log = WatchedLog()
        channel = Channel(log, "")
        publisher = channel.publisher()
        update = channel.keyframe(publisher, 0, model())
        for version in (1, 2):
            update = channel.keyframe(publisher, version, model(version), update)
        log.away.add(topic.name)
        update = channel.keyframe(publisher, 3, model(3), update)
        assert publisher.head() == update and _low(channel) == 0, "kept, and said"
        log.away.clear()
        channel.keyframe(publisher, 4, model(4), update)
        assert publisher.retained(2) and not publisher.retained(1), "deleted the next time"
        channel.close()


@pytest.mark.parametrize(("topic", "read"), [(topics.RELEASES, 1), (topics.MODEL_UPDATES, 3)])
def test_a_record_that_could_not_be_read_now_is_read_the_next_time(
    topic: topics.Topic, read: int
) -> None:
    log = WatchedLog()
    channel = Channel(log, "")
    publisher = channel.publisher()
    update = channel.keyframe(publisher, 0, model())
    of_a_newer_schema = MARKER + b"unknown." + b"\0"
    log.producer().append(topic.name, of_a_newer_schema, key=b"other", partition=0)
    log.away.add(topics.SCHEMAS.name)
    update = channel.keyframe(publisher, 1, model(1), update)
    log.away.clear()
    log.read.clear()
    channel.keyframe(publisher, 2, model(2), update)
    assert log.read[topic.name] == read
    channel.close()


def test_a_publisher_walks_its_chain_where_it_begins_alone(
    memory_channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = memory_channel

    def ranges(start: int, end: int) -> list[Range]:
        return [Range(partition=1, start=start, end=end)]

    first = channel.publisher()
    base = channel.keyframe(first, 0, model(), ranges=[Range(partition=0, start=0, end=3)])
    fork = channel.delta(first, 1, trained(model(), 1), base, ranges=ranges(0, 5))
    publisher = channel.publisher()
    walked: list[int] = []
    chain = publisher.lineage.chain
    monkeypatch.setattr(
        publisher.lineage, "chain", lambda version: walked.append(version) or chain(version)
    )
    update = fork
    for version in range(2, 6):
        made = trained(model(), version)
        update = channel.delta(
            publisher, version, made, update, ranges=ranges(version + 3, version + 4)
        )
    assert set(walked) == {1}
    with pytest.raises(ValueError, match="does not go on"):
        channel.delta(publisher, 6, model(6), update, ranges=[Range(partition=0, start=0, end=4)])
    left = channel.delta(publisher, 6, model(6), fork, ranges=ranges(5, 6))
    channel.delta(publisher, 7, model(7), left, ranges=[Range(partition=0, start=3, end=4)])
