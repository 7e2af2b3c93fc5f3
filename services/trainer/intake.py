"""Every trajectory record in, exactly one decision out. Pure: no log, no torch, no clock.

    offer(record) ──> decided at once: duplicate, stale, filtered, untrainable
                 └──> pending ──> take() ──> settle(): trained, or filtered (non_finite, too_few)
                         └──> superseded by a revision; stale by age or backlog

An answer is trained at most once. A revision of one that was may be trained as the difference of
their rewards, ``compensated`` (:mod:`services.trainer.routes`); whatever else becomes of it is
``filtered: already_trained``, so its line is never taken for one that was not trained.

``account()`` is what goes into the next version (:mod:`services.trainer.account`).
Of what withdrawn versions had decided (:mod:`services.trainer.branch`) every record that is no
repeat is ``filtered: rolled_back``.
Driven by :mod:`services.trainer.trainer`; ids and ranges are put back by
:mod:`services.trainer.ledger`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.trainer import answer as answers
from services.trainer.account import Account, Decision, Place, Ranges
from services.trainer.answer import Answer, Limits, Refusal
from services.trainer.branch import Ages, RolledBack
from services.trainer.known import KnownIds, level, state_after
from services.trainer.pool import Pool
from services.trainer.routes import ALREADY, Divergence, Routes
from services.trainer.settings import Settings
from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Trajectory
from tailrace.log.base import LogRecord
from tailrace.partition import partition_of

_MISPLACED = Refusal("untrainable", "misplaced")


class Intake:
    """The decisions of one trainer along one chain of versions."""

    def __init__(self, limits: Limits, settings: Settings) -> None:
        self.known = KnownIds(int(settings.horizon_s * 1000))
        self.divergence = Divergence()
        """Of the last step; whoever takes steps says it."""
        self._limits = limits
        self._routes = Routes(settings)
        self._max_held = settings.max_held
        self._account_s, self._account_records = settings.account_s, settings.account_records
        self.ranges = Ranges()
        """Where the reading stands: whoever offers records takes them there."""
        self._pending = Pool(
            self._routes, wait_s=settings.batch_wait_s, largest=settings.batch_answers
        )
        self._now_s = 0.0
        self._taken: dict[Place, Answer] = {}
        self._decisions: dict[Place, Decision] = {}
        self._undone_since_s: float | None = None
        """Since when a decision waits to be published."""
        self.ages, self.rolled_back = Ages(), RolledBack()

    def offer(
        self, record: LogRecord, trajectory: Trajectory | None, now_s: float, *, held: bool
    ) -> list[Decision]:
        """Take a record that was taken from :attr:`ranges`, which says whether it was ``held``;
        ``trajectory`` None: it could not be read. Returns the decisions that are made at once:
        its own, and before that the one of an answer whose place it takes."""
        assert not self._taken, "an answer is in a step"
        self._now_s = now_s
        place = (record.partition, record.offset)
        self.known.saw(record.partition, record.time_ms)
        if trajectory is None:
            key = (record.key or b"").decode(errors="replace")
            return [self._decide(place, key, "", now_s, 0, Refusal("untrainable", "invalid"))]
        done: list[Decision] = []
        found = self._weigh(record, trajectory, now_s, held, done)
        if isinstance(found, Answer):
            self._pending.add(found, now_s)
            return done
        closed_ms = trajectory.closed_log_time_ms or record.time_ms
        key = trajectory.interaction_id.partition("~")[0]
        # Whoever can write a record anywhere must not be able to speak for the one that belongs.
        subject = "" if found == _MISPLACED else trajectory.trajectory_id
        reward = self.known.reward(trajectory.supersedes or "") if found == ALREADY else None
        return [*done, self._decide(place, key, subject, now_s, closed_ms, found, reward)]

    def _weigh(
        self, record: LogRecord, t: Trajectory, now_s: float, held: bool, done: list[Decision]
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
                done.append(self._drop(t.supersedes, why, now_s))
            state = self.known.state(t.supersedes)
            if state not in ("trained", "untrained"):
                return Refusal("filtered", "predecessor_unknown")
            if state == "trained":
                return self._revised(answers.read(record, t, self._limits), t.supersedes)
        found = answers.read(record, t, self._limits)
        return self._refused(found) or found if isinstance(found, Answer) else found

    def _revised(self, found: Answer | Refusal, trained: str) -> Answer | Refusal:
        """Of a revision whose predecessor was ``trained``."""
        if isinstance(found, Answer):
            found = self._routes.compensation(found, self.known.reward(trained))
        return ALREADY if isinstance(found, Refusal) or self._refused(found) else found

    def _misplaced(self, record: LogRecord, t: Trajectory) -> bool:
        try:
            session = ids.session_of(t.interaction_id)
        except InvalidRecord:
            return False  # it belongs nowhere; refused as such
        return partition_of(session.encode(), self.ranges.count) != record.partition

    def _routed(self, answer: Answer, *, paired: bool = False) -> Answer | Refusal:
        """With its objective, as it would be taken now."""
        age = self.ages.of(answer.oldest_version)
        found = self._routes.of(answer, age, self.divergence, paired=paired)
        if isinstance(found, Refusal):
            return found
        return msgspec.structs.replace(answer, objective=found, age_versions=age)

    def _refused(self, answer: Answer) -> Refusal | None:
        found = self._routed(answer)
        return found if isinstance(found, Refusal) else None

    def refresh(self, now_s: float) -> list[Decision]:
        """Decide what has become too old, or too much, while it was pending."""
        self._now_s = now_s
        done = []
        for answer in self._pending:
            refusal = self._refused(answer)
            if refusal is not None:
                done.append(self._drop(answer.trajectory_id, refusal, now_s))
        for answer in self._pending.oldest(len(self._pending) - self._max_held):
            done.append(self._drop(answer.trajectory_id, Refusal("stale", "backlog"), now_s))
        return done

    @property
    def usable(self) -> int:
        """How many pending answers a step could take, as of the last :meth:`refresh`."""
        return sum(len(unit.answers) for unit in self._pending.ripe(self._now_s))

    def waiting_s(self, now_s: float) -> float:
        """How long the answer that has waited longest has; 0 without any."""
        return self._pending.waiting_s(now_s)

    def due(self, now_s: float) -> bool:
        """Whether decisions have waited long enough to be published, or are :attr:`enough`."""
        since_s = self._undone_since_s
        return self.enough or (since_s is not None and now_s - since_s >= self._account_s)

    @property
    def enough(self) -> bool:
        """Whether there are as many decisions as one version is to have."""
        return len(self._decisions) >= self._account_records

    @property
    def undone(self) -> bool:
        """Whether a decision waits to be published."""
        return self._undone_since_s is not None

    def take(self, count: int, *, whole: bool = True) -> list[Answer]:
        """The freshest answers for one step, oldest of them first, each with its objective; more
        than ``count`` where the last group or pair of them has more. To be settled before an
        account. ``whole`` False: those too that still wait for the rest of their group.

        Under overload the others age until they are stale: what is trained stays near the policy.
        """
        chosen: list[list[Answer]] = []
        for unit in self._pending.ripe(self._now_s, whole=whole):
            if sum(map(len, chosen)) >= count:
                break
            routed = [self._routed(answer, paired=unit.paired) for answer in unit.answers]
            fit = [answer for answer in routed if isinstance(answer, Answer)]
            if len(fit) == len(routed):  # else the next refresh decides about them
                chosen.append(fit)
        taken = [answer for unit in reversed(chosen) for answer in unit]
        for answer in taken:
            self._pending.remove(answer.trajectory_id)
            self._taken[answer.partition, answer.offset] = answer
        return taken

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
        return self.ranges.account(self._decisions, self._places())

    def published(self) -> None:
        """The account is in a version: it is the base now."""
        self.ranges.published(self._places())
        self._decisions = {}
        self._undone_since_s = None
        self.known.prune()

    def _places(self) -> list[Place]:
        return [(answer.partition, answer.offset) for answer in self._pending]

    def _drop(self, trajectory_id: str, refusal: Refusal, now_s: float) -> Decision:
        return self._decide_answer(self._pending.remove(trajectory_id), refusal, now_s)

    def _decide_answer(self, answer: Answer, refusal: Refusal, now_s: float) -> Decision:
        place = (answer.partition, answer.offset)
        subject, closed_ms = answer.trajectory_id, answer.closed_ms
        reward = answer.before
        if refusal.outcome == "trained":
            reward = level(answer.objective, answer.reward)
            refusal = refusal if answer.before is None else Refusal("compensated", "")
        elif answer.before is not None:
            refusal = ALREADY
        return self._decide(place, answer.session, subject, now_s, closed_ms, refusal, reward)

    def _decide(
        self,
        place: Place,
        key: str,
        subject: str,
        now_s: float,
        closed_ms: int,
        why: Refusal,
        reward: float | None = None,
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
            self.known.decided(subject, place[0], closed_ms, state, reward)
        if self._undone_since_s is None:
            self._undone_since_s = now_s
        return decision
