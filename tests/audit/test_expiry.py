"""What expires is out of the account, whichever topic it is on, for who follows as for who comes
anew."""

from __future__ import annotations

from tailrace import topics
from tailrace.audit import Audit
from tailrace.events import Tick
from tests.audit.history import History, kinds
from tests.audit.test_recount import reader_of


def _ends(history: History, topic: topics.Topic) -> dict[int, int]:
    return history.log.ends(topic.name)


def _partition(history: History) -> int:
    """Where what is said of the history's session lies."""
    return history.feedback().partition


def test_receipts_that_expire_before_their_subjects_are_no_loss() -> None:
    history = History()
    for _ in range(8):
        history.joined(history.feedback())
    partition = _partition(history)
    decided = [history.trajectory(partition) for _ in range(4)]
    history.step(1, *decided)
    for at in decided:
        history.decided(at, 1)
    end = decided[-1].offset + 1
    history.version(1, 0, {partition: (0, end, [])})
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
    assert (report.feedback.records, report.feedback.missing) == (2, 1)
    assert (report.trajectories.records, report.trajectories.missing) == (0, 0)


def test_who_follows_forgets_what_expires() -> None:
    history = History()
    reader = reader_of(history)
    for _ in range(5):
        history.joined(history.feedback())
    partition = _partition(history)
    decided = [history.trajectory(partition) for _ in range(4)]
    history.step(1, *decided)
    for at in decided:
        history.decided(at, 1)
    end = decided[-1].offset + 1
    history.version(1, 0, {partition: (0, end, [])})
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
