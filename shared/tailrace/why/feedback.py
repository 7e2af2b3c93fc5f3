"""Which interaction a feedback is about."""

from __future__ import annotations

import uuid

from tailrace import ids, topics
from tailrace.events import Feedback, Prompt, Receipt, Trajectory
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder
from tailrace.turn import SKEW_MS, Reader


def interactions(log: Log, decoder: Decoder, feedback_id: str, *, prefix: str = "") -> list[str]:
    """The interaction that a feedback names. Of one about a session: those of whose reward it
    became a part, newest first; where there is none (yet), the one before it.

    Raises InvalidRecord for what is no feedback id, ValueError where it or all that it is about is
    not on the log, LogError.
    """
    subject = ids.subject_of(feedback_id)
    if ids.is_interaction(subject):
        return [subject]
    reader = Reader(log, decoder, subject, _born_ms(subject), prefix=prefix)
    record = next(
        (
            record
            for record, event in reader.read(topics.FEEDBACK)
            if isinstance(event, Feedback) and event.feedback_id == feedback_id
        ),
        None,
    )
    if record is None:
        gone = reader.expired(_born_ms(subject) + SKEW_MS)
        lost = "; its time may be over there" if "feedback" in gone else ""
        raise ValueError(f"no feedback {feedback_id!r} is on the log{lost}")
    later = Reader(log, decoder, subject, record.time_ms, prefix=prefix)
    receipt = _receipt(later, record)
    wanted = set() if receipt is None else set(receipt.trajectories)
    found = _of(later, wanted) or _before(reader, record)
    if not found:
        outcome = "in flight" if receipt is None else receipt.outcome
        raise ValueError(
            f"{feedback_id!r} is {outcome}: nothing of its session {subject!r} is on the log"
        )
    return found


def _receipt(reader: Reader, record: LogRecord) -> Receipt | None:
    place = (record.partition, record.offset)
    for _, event in reader.read(topics.RECEIPTS):
        if isinstance(event, Receipt) and event.stage == "rewards":
            if (event.source.partition, event.source.offset) == place:
                return event
    return None


def _of(reader: Reader, trajectories: set[str]) -> list[str]:
    """The interactions of trajectories, newest first."""
    missing, found = set(trajectories), set()
    for _, event in reader.read(topics.TRAJECTORIES) if missing else ():
        if isinstance(event, Trajectory) and event.trajectory_id in missing:
            missing.remove(event.trajectory_id)
            found.add(event.interaction_id)
            if not missing:
                break
    return sorted(found, reverse=True)


def _before(reader: Reader, record: LogRecord) -> list[str]:
    """The newest interaction of the session that was begun before a record."""
    newest: list[str] = []
    for asked, event in reader.read(topics.PROMPTS):
        if isinstance(event, Prompt) and event.session_id == ids.session_of(event.interaction_id):
            if asked.time_ms > record.time_ms:
                break
            newest = [event.interaction_id]
    return newest


def _born_ms(session: str) -> int:
    """From when on a session's records are read: its name may tell the time."""
    try:
        name = uuid.UUID(session.partition(":")[2])
    except ValueError:
        return 0
    return max(0, (name.int >> 80) - SKEW_MS) if name.version == 7 else 0
