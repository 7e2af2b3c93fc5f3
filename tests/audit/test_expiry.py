"""What expires is out of the account, whichever topic it is on, for who follows as for who comes
anew."""

from __future__ import annotations

import pytest

from tailrace import topics
from tailrace.audit import Audit
from tailrace.errors import LogError
from tailrace.events import Tick
from tests.audit.history import History, kinds
from tests.audit.test_recount import reader_of


def _ends(history: History, topic: topics.Topic) -> dict[int, int]:
    return history.log.ends(topic.name)


def _partition(history: History) -> int:
    """Where what is said of the history's session lies."""
    return history.feedback().partition


def _trained(history: History) -> int:
    """A version of four trajectories, and the partition that they are in."""
    partition = _partition(history)
    decided = [history.trajectory(partition) for _ in range(4)]
    history.step(1, *decided)
    for at in decided:
        history.decided(at, 1)
    history.version(1, 0, {partition: (0, decided[-1].offset + 1, [])})
    return partition


def test_receipts_that_expire_before_their_subjects_are_no_loss() -> None:
    history = History()
    for _ in range(8):
        history.joined(history.feedback())
    partition = _trained(history)
    history.log.delete_before(topics.RECEIPTS.name, _ends(history, topics.RECEIPTS))
    history.now_ms += 3_600_000
    history.joined(history.feedback())
    history.now_ms += 1
    lost = history.feedback()
    tick = Tick(partition=partition, event_time_ms=history.now_ms + 61_000)
    history.writer.write(topics.TICKS, tick, partition=partition)
    report = reader_of(history).read().report()
    assert kinds(report) == ["no_receipt"]
    where = report.problems[0].where
    assert where is not None and where.offset == lost.offset
    feedback, trajectories = report.feedback, report.trajectories
    assert (feedback.records, feedback.missing, feedback.forgotten) == (11, 1, 9)
    assert (trajectories.records, trajectories.missing, trajectories.forgotten) == (4, 0, 4)


def test_a_loss_is_one_though_every_receipt_has_expired() -> None:
    history = History()
    for _ in range(3):
        history.joined(history.feedback())
    partition = _partition(history)
    assert topics.RECEIPTS.retention_ms is not None
    history.now_ms += topics.RECEIPTS.retention_ms + 1
    history.log.delete_before(topics.RECEIPTS.name, _ends(history, topics.RECEIPTS))
    follower = reader_of(history)
    assert follower.read().report().ok
    lost = history.feedback()
    history.now_ms += 61_000
    tick = Tick(partition=partition, event_time_ms=history.now_ms)
    history.writer.write(topics.TICKS, tick, partition=partition)
    for reader in (follower, reader_of(history)):
        report = reader.read().report()
        assert kinds(report) == ["no_receipt"]
        where = report.problems[0].where
        assert where is not None and where.offset == lost.offset
        assert (report.feedback.missing, report.feedback.forgotten) == (1, 4)


def test_what_breaks_off_is_looked_at_again() -> None:
    history = History()
    for _ in range(3):
        history.joined(history.feedback())
    history.log.delete_before(topics.RECEIPTS.name, _ends(history, topics.RECEIPTS))
    history.now_ms += 1
    history.joined(history.feedback())
    history.now_ms += 61_000
    tick = Tick(partition=_partition(history), event_time_ms=history.now_ms)
    history.writer.write(topics.TICKS, tick, partition=_partition(history))
    reader = reader_of(history)
    retention_ms, failures = history.log.retention_ms, [LogError("away")]

    def away(topic: str) -> int | None:
        if failures:
            raise failures.pop()
        return retention_ms(topic)

    history.log.retention_ms = away  # type: ignore[method-assign]
    with pytest.raises(LogError):
        reader.read()
    report = reader.read().report()
    assert (report.ok, report.feedback.forgotten) == (True, 3)


def test_who_follows_forgets_what_expires() -> None:
    history = History()
    reader = reader_of(history)
    for _ in range(5):
        history.joined(history.feedback())
    _trained(history)
    assert reader.read().report().ok
    for topic in (topics.FEEDBACK, topics.TRAJECTORIES):
        history.log.delete_before(topic.name, _ends(history, topic))
    history.joined(history.feedback())
    audit = reader.read()
    report = audit.report()
    assert report.feedback == reader_of(history).read().report().feedback
    assert (report.feedback.records, report.ok) == (1, True)
    assert _held(audit) == 2, "the feedback that is there, and its receipt"


def _held(audit: Audit) -> int:
    counted = (audit._feedback, audit._rewards, audit._trajectories, audit._trainer, audit._letters)
    return sum(map(len, counted)) + sum(map(len, audit._inputs.values()))
