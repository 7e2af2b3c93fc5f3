"""Every trajectory record in, exactly one decision out. Pure: no log, no torch, no clock.

    offer(record) ──> decided at once: duplicate, stale, filtered, untrainable
                 └──> pending ──> take() ──> settle(): trained, or filtered (non_finite, too_few)
                         └──> superseded by a revision; stale by age or backlog

``account()`` is what goes into the next version: per partition the range read, the offsets in it
that are undecided (``held``), and a decision for every other record. Invariant, checked there: the
decided offsets are ``([start, end) + base.held) - held`` less what is no record or had expired.
Of what withdrawn versions had decided (:mod:`services.trainer.branch`) every record that is no
repeat is ``filtered: rolled_back``.
Driven by :mod:`services.trainer.trainer`; ids and ranges are put back by
:mod:`services.trainer.ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from services.trainer import answer as answers
from services.trainer.answer import Answer, Limits, Refusal
from services.trainer.branch import Ages, RolledBack
from services.trainer.known import KnownIds, state_after
from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Range, Trajectory
from tailrace.log.base import LogRecord
from tailrace.partition import partition_of

Place = tuple[int, int]
_MISPLACED = Refusal("untrainable", "misplaced")


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record."""

    partition: int
    offset: int
    key: str
    """The record's session (its key where that cannot be told)."""
    trajectory_id: str
    """Empty where the record could not be read, or lies where its id does not belong."""
    outcome: str
    reason: str | None = None
    successor: str | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a version says about the log."""

    ranges: list[Range]
    decisions: list[Decision]


class Partition(msgspec.Struct, kw_only=True):
    """Where the reading of one partition stands."""

    start: int
    """End of the base version's range."""
    next: int
    """Offset that is read next."""
    reread: set[int]
    """Offsets that the base held and that are still to be read again."""
    owed: set[int]
    """Offsets read since the base (its held ones included): each must be decided or held."""
    expired_to: int | None = None


class Intake:
    """The decisions of one trainer along one chain of versions."""

    def __init__(
        self, limits: Limits, *, horizon_ms: int, max_age_versions: int, max_held: int
    ) -> None:
        self.known = KnownIds(horizon_ms)
        self._limits = limits
        self._max_age = max_age_versions
        self._max_held = max_held
        self._partitions: dict[int, Partition] = {}
        self._pending: dict[str, Answer] = {}
        """By trajectory id, in the order of arrival."""
        self._arrived_s: dict[str, float] = {}
        self._taken: dict[Place, Answer] = {}
        self._decisions: dict[Place, Decision] = {}
        self._undone_since_s: float | None = None
        self.ages, self.rolled_back = Ages(), RolledBack()

    def begin(self, partitions: Iterable[int], ranges: Iterable[Range]) -> None:
        """Go on after a version with these ranges (none: from the log's beginning).

        ``partitions``: all of the topic's.
        """
        base = {r.partition: r for r in ranges}
        for number in partitions:
            end, held = (base[number].end, base[number].held) if number in base else (0, [])
            self._partitions[number] = Partition(start=end, next=end, reread=set(held), owed=set())

    def starts(self) -> dict[int, int]:
        """Where each partition is to be read from: the first held record or the range's end."""
        return {p: min({*s.reread, s.next}) for p, s in self._partitions.items()}

    def expire(self, lows: Mapping[int, int]) -> int:
        """Records below these low watermarks are gone. Returns how many had not been read."""
        lost = 0
        for number, low in lows.items():
            partition = self._partitions[number]
            gone = {offset for offset in partition.reread if offset < low}
            partition.reread -= gone
            lost += len(gone)
            if low > partition.next:
                lost += low - partition.next
                partition.next = partition.expired_to = low
        return lost

    def advance(self, partition: int, position: int) -> None:
        """The reader stands here: what lies before and was not offered is no record."""
        at = self._partitions[partition]
        at.next = max(at.next, position)

    def next_offset(self, partition: int) -> int:
        """The first offset that was not read."""
        return self._partitions[partition].next

    def offer(
        self, record: LogRecord, trajectory: Trajectory | None, now_s: float
    ) -> Decision | None:
        """Take the next record of a partition; ``trajectory`` None: it could not be read.

        Returns the decision, if it could be made at once. A record that the base decided (they come
        again between held ones) is passed over.
        """
        assert not self._taken, "an answer is in a step"
        place = (record.partition, record.offset)
        partition = self._partitions[record.partition]
        held = record.offset in partition.reread
        if held:
            partition.reread.discard(record.offset)
        elif record.offset >= partition.next:
            partition.next = record.offset + 1
        else:
            return None
        partition.owed.add(record.offset)
        self.known.saw(record.partition, record.time_ms)
        if trajectory is None:
            key = (record.key or b"").decode(errors="replace")
            return self._decide(place, key, "", now_s, 0, Refusal("untrainable", "invalid"))
        found = self._weigh(record, trajectory, now_s, held)
        if isinstance(found, Answer):
            self._pending[found.trajectory_id] = found
            self._arrived_s[found.trajectory_id] = now_s
            return None
        closed_ms = trajectory.closed_log_time_ms or record.time_ms
        key = trajectory.interaction_id.partition("~")[0]
        # Whoever can write a record anywhere must not be able to speak for the one that belongs.
        subject = "" if found == _MISPLACED else trajectory.trajectory_id
        return self._decide(place, key, subject, now_s, closed_ms, found)

    def _weigh(
        self, record: LogRecord, t: Trajectory, now_s: float, held: bool
    ) -> Answer | Refusal:
        if self._misplaced(record, t):
            return _MISPLACED
        if t.trajectory_id in self._pending or self.known.state(t.trajectory_id) is not None:
            return Refusal("duplicate", "trajectory_id")
        if self.rolled_back.holds(record.partition, record.offset):
            return Refusal("filtered", "rolled_back")
        # A held one was within the horizon when it came, and cannot have been decided since.
        if t.closed_log_time_ms is not None and not held:
            if self.known.beyond(record.partition, t.closed_log_time_ms):
                return Refusal("stale", "horizon")
        if t.supersedes is not None:
            if t.supersedes in self._pending:
                why = Refusal("superseded", "revision", t.trajectory_id)
                self._drop(t.supersedes, why, now_s)
            state = self.known.state(t.supersedes)
            if state == "trained":
                return Refusal("filtered", "already_trained")
            if state != "untrained":
                return Refusal("filtered", "predecessor_unknown")
        found = answers.read(record, t, self._limits)
        return self._too_old(found) or found if isinstance(found, Answer) else found

    def _misplaced(self, record: LogRecord, t: Trajectory) -> bool:
        try:
            session = ids.session_of(t.interaction_id)
        except InvalidRecord:
            return False  # it belongs nowhere; refused as such
        return partition_of(session.encode(), len(self._partitions)) != record.partition

    def _too_old(self, answer: Answer) -> Refusal | None:
        age = self.ages.of(answer.oldest_version)
        if age is None:
            return Refusal("stale", "branch")
        return Refusal("stale", "age") if age > self._max_age else None

    def refresh(self, now_s: float) -> list[Decision]:
        """Decide what has become too old, or too much, while it was pending."""
        done = []
        for answer in list(self._pending.values()):
            refusal = self._too_old(answer)
            if refusal is not None:
                done.append(self._drop(answer.trajectory_id, refusal, now_s))
        excess = len(self._pending) - self._max_held
        for answer in sorted(self._pending.values(), key=_age_order)[: max(0, excess)]:
            done.append(self._drop(answer.trajectory_id, Refusal("stale", "backlog"), now_s))
        return done

    @property
    def usable(self) -> int:
        """How many answers are pending."""
        return len(self._pending)

    def waiting_s(self, now_s: float) -> float:
        """How long the answer that has waited longest has; 0 without any."""
        return now_s - min(self._arrived_s.values(), default=now_s)

    def undone_s(self, now_s: float) -> float:
        """How long a decision has waited to be published; 0 without any."""
        return 0.0 if self._undone_since_s is None else now_s - self._undone_since_s

    @property
    def undone(self) -> bool:
        """Whether a decision waits to be published."""
        return self._undone_since_s is not None

    def take(self, count: int) -> list[Answer]:
        """The freshest answers for one step, oldest of them first. To be settled before an account.

        Under overload the others age until they are stale: what is trained stays near the policy.
        """
        chosen = sorted(self._pending.values(), key=_age_order)[-count:]
        for answer in chosen:
            del self._pending[answer.trajectory_id], self._arrived_s[answer.trajectory_id]
            self._taken[answer.partition, answer.offset] = answer
        return chosen

    def settle(
        self, taken: Sequence[Answer], now_s: float, outcome: str, reason: str | None = None
    ) -> list[Decision]:
        """Decide what was taken."""
        for answer in taken:
            del self._taken[answer.partition, answer.offset]
        why = Refusal(outcome, reason or "")
        return [self._decide_answer(answer, why, now_s) for answer in taken]

    def account(self) -> Account:
        """Ranges and decisions since the base version."""
        assert not self._taken, "an answer is in a step"
        held: dict[int, set[int]] = {p: set(s.reread) for p, s in self._partitions.items()}
        for answer in self._pending.values():
            held[answer.partition].add(answer.offset)
        ranges = []
        for number, partition in sorted(self._partitions.items()):
            decided = {o for p, o in self._decisions if p == number}
            assert decided == partition.owed - held[number], f"partition {number} does not tile"
            ranges.append(
                Range(
                    partition=number,
                    start=partition.start,
                    end=partition.next,
                    held=sorted(held[number]),
                    expired_to=partition.expired_to,
                )
            )
        decisions = [self._decisions[place] for place in sorted(self._decisions)]
        return Account(ranges=ranges, decisions=decisions)

    def published(self) -> None:
        """The account is in a version: it is the base now."""
        pending: dict[int, set[int]] = {}
        for answer in self._pending.values():
            pending.setdefault(answer.partition, set()).add(answer.offset)
        for number, partition in self._partitions.items():
            partition.start, partition.expired_to = partition.next, None
            partition.owed = pending.get(number, set())
        self._decisions = {}
        self._undone_since_s = None
        self.known.prune()

    def _drop(self, trajectory_id: str, refusal: Refusal, now_s: float) -> Decision:
        del self._arrived_s[trajectory_id]
        return self._decide_answer(self._pending.pop(trajectory_id), refusal, now_s)

    def _decide_answer(self, answer: Answer, refusal: Refusal, now_s: float) -> Decision:
        place = (answer.partition, answer.offset)
        subject, closed_ms = answer.trajectory_id, answer.closed_ms
        return self._decide(place, answer.session, subject, now_s, closed_ms, refusal)

    def _decide(
        self, place: Place, key: str, subject: str, now_s: float, closed_ms: int, why: Refusal
    ) -> Decision:
        assert place not in self._decisions, f"{place} is decided twice"
        decision = Decision(
            partition=place[0],
            offset=place[1],
            key=key,
            trajectory_id=subject,
            outcome=why.outcome,
            reason=why.reason or None,
            successor=why.successor,
        )
        self._decisions[place] = decision
        state = state_after(why.outcome, why.reason)
        if subject and state is not None:
            self.known.decided(subject, place[0], closed_ms, state)
        if self._undone_since_s is None:
            self._undone_since_s = now_s
        return decision


def _age_order(answer: Answer) -> tuple[int, int, int]:
    return answer.time_ms, answer.partition, answer.offset
