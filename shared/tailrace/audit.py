"""The conservation law, recounted from the log (DESIGN section 5 and 6).

:class:`Audit` is pure: it is fed decoded records in any order and :meth:`Audit.report` says whether

- every feedback record has exactly one outcome or is in flight,
- every trajectory record has exactly one outcome along the base chain of one head, or is in flight,
- the ranges and held records of the chain's versions tile the log,
- digests chain, the ledger's inputs are what was trained, once, and the head can still be built
  from the chunks there are.

:func:`read` feeds one from a log (:mod:`tailrace.recount` again and again). What is below the low
watermarks is out of the account, and so is what may have had a receipt that is there no more. The
same receipt twice is fine (senders repeat themselves after a crash); two that differ are an error.
Called by ``tailrace audit`` and at the end of the demo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
import contextlib
from pathlib import Path

from tailrace.chain import Place, Problem, base_chain, check_bounds, decisions
from tailrace.deadline import Deadline
from tailrace.errors import UpdateRefused
from tailrace.events import Coordinates, ModelUpdate, Receipt, Release, Step, Tick, Trajectory
from tailrace.log.base import Log
from tailrace.report import Account, Report
from tailrace.weights.history import Written, history
from tailrace.weights.lineage import Lineage
from tailrace.wire import Wire

_SHOWN = 50
_USED = ("trained", "compensated")


class Audit:
    """Recounts one model's log. Feed it, then ask for the :meth:`report`."""

    def __init__(self, model: str, deadline: Deadline) -> None:
        """``deadline``: fresh; says when feedback without a receipt is missing."""
        self._model = model
        self._deadline = deadline
        self._feedback: dict[Place, int] = {}
        """Append time of each feedback record."""
        self._trajectories: dict[Place, tuple[str | None, int]] = {}
        """Trajectory id (None: unreadable) and append time at each place."""
        self._starts: dict[str, dict[int, int]] = {}
        """Low watermarks, by topic."""
        self._ends: dict[int, int] = {}
        self._receipted_from: dict[int, float] = {}
        """Append time of the first receipt that is kept, of partitions that lost some."""
        self._chunk_bounds: tuple[int, int] | None = None
        self._rewards: dict[Place, set[str]] = {}
        self._trainer: dict[tuple[int, Place], set[str]] = {}
        """Outcomes by (version, place)."""
        self._written: list[Written] = []
        self._followed: Release | None = None
        self._unreadable: list[Problem] = []
        self._inputs: dict[int, Counter[Place]] = {}
        self._letters: set[tuple[str, int, int]] = set()
        self._counts: Counter[str] = Counter(read=0, repeated=0, other=0)

    def feedback(self, partition: int, offset: int, time_ms: int) -> None:
        """One feedback record, readable or not."""
        self._feedback[partition, offset] = time_ms

    def trajectory(
        self, partition: int, offset: int, time_ms: int, event: Trajectory | None
    ) -> None:
        """One trajectory record; None: unreadable."""
        self._trajectories[partition, offset] = event.trajectory_id if event else None, time_ms
        if event is not None:
            self._deadline.acted(partition, event.event_time_ms)

    def bounds(self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """The watermarks of ``feedback`` or ``trajectories``, by partition. What fell below the
        lower ones since it was read is out of the account, with all that was said of it."""
        if topic == "trajectories":
            self._ends = dict(ends)
        if starts == self._starts.get(topic):
            return
        self._starts[topic] = dict(starts)
        if topic == "feedback":
            self._feedback = {p: t for p, t in self._feedback.items() if self._there(topic, p)}
            self._rewards = {p: o for p, o in self._rewards.items() if self._there(topic, p)}
        else:
            places = self._trajectories.items()
            self._trajectories = {p: each for p, each in places if self._there(topic, p)}
            self._trainer = {k: o for k, o in self._trainer.items() if self._there(topic, k[1])}
            for version, inputs in self._inputs.items():
                kept = {p: n for p, n in inputs.items() if self._there(topic, p)}
                self._inputs[version] = Counter(kept)
        letters = self._letters
        self._letters = {at for at in letters if at[0] != topic or self._there(topic, at[1:])}

    def receipts_from(self, partition: int, time_ms: int) -> None:
        """A partition of ``receipts`` has lost those before this time. Of a subject that was there
        by then nobody can say any more that it has none: without one it is ``forgotten``."""
        self._receipted_from[partition] = time_ms

    def _there(self, topic: str, place: Place) -> bool:
        return place[1] >= self._starts.get(topic, {}).get(place[0], 0)

    def _forgotten(self, partition: int, time_ms: int) -> bool:
        return time_ms <= self._receipted_from.get(partition, -1)

    def chunk_bounds(self, start: int, end: int) -> None:
        """The watermarks of ``model-chunks``."""
        self._chunk_bounds = (start, end)

    def receipt(self, event: Receipt) -> None:
        """One committed receipt."""
        self._counts["read"] += 1
        place = (event.source.partition, event.source.offset)
        if not self._there("feedback" if event.stage == "rewards" else "trajectories", place):
            return
        if event.stage == "rewards":
            outcomes = self._rewards.setdefault(place, set())
        elif event.model in (None, self._model) and event.version is not None:
            outcomes = self._trainer.setdefault((event.version, place), set())
        else:
            self._counts["other"] += 1
            return
        self._counts["repeated"] += event.outcome in outcomes
        outcomes.add(event.outcome)

    def update(self, event: ModelUpdate, signed: bool = True) -> None:
        """One committed manifest, in log order; whether a trusted key signed it, where there are
        any. What counts is what the trainer's history is (:mod:`tailrace.weights.history`)."""
        if event.model == self._model:
            self._written.append(Written(event, signed))

    def release(self, event: Release) -> None:
        """One committed release. The newest of mode ``follow`` says which version is the head,
        where nobody asks for another."""
        if event.model == self._model and event.mode != "pin":
            self._followed = event

    def unreadable_update(self, partition: int, offset: int) -> None:
        """A committed manifest under this model's key that cannot be read."""
        self._unreadable.append(_problem("unreadable", "model-updates", (partition, offset)))

    def step(self, event: Step) -> None:
        """One committed ledger entry."""
        if event.model == self._model:
            inputs = self._inputs.setdefault(event.version, Counter())
            inputs.update((i.partition, i.offset) for i in event.inputs)

    def tick(self, event: Tick) -> None:
        """The rewards clock of one partition."""
        self._deadline.tick(event.partition, event.event_time_ms)

    def dead_letter(self, headers: Mapping[str, bytes], *, prefix: str = "") -> None:
        """One dead letter, by its headers. A source that cannot be read is nobody's."""
        try:
            topic, partition, offset = headers["tailrace-source"].decode().rsplit("/", 2)
            self._letters.add((topic.removeprefix(prefix), int(partition), int(offset)))
        except (KeyError, ValueError):
            self._counts["other"] += 1

    def report(self, head: int | None = None) -> Report:
        """The account of the history of version ``head`` (default: of the one that is trained on,
        the newest where none was rolled back)."""
        problems = list(self._unreadable)
        updates = history(self._written)
        if self._written and all(update.kind == "adapter" for update in updates):
            detail = f"no trusted key signed any of {len(self._written)}"
            problems.append(Problem(kind="no_version", detail=detail))
        head = self._trained(updates) if head is None else head
        feedback = self._feedback_account(problems)
        chain = base_chain(updates, head, problems)
        trajectories = self._trajectory_account(chain, problems)
        check_bounds(chain, self._ends, self._chunk_bounds, problems)
        return Report(
            ok=not problems,
            model=self._model,
            head=chain[-1].version if chain else None,
            digest=chain[-1].digest if chain else None,
            versions=len(chain),
            feedback=feedback,
            trajectories=trajectories,
            receipts={**self._counts, "other": self._counts["other"] + self._strays(chain)},
            problems=problems,
        )

    def _trained(self, updates: list[ModelUpdate]) -> int | None:
        """None: the newest, also where readers would pass over it: that is a finding."""
        if self._followed is None or self._followed.live is None:
            return None
        lineage = Lineage()
        for update in updates:
            with contextlib.suppress(UpdateRefused):  # a finding, where it is of the chain
                lineage.add(update)
        served = lineage.served(self._followed)
        return self._followed.live if served is None else served.version

    def _feedback_account(self, problems: list[Problem]) -> Account:
        account, outcomes = Account(records=len(self._feedback)), Counter[str]()
        for place, time_ms in self._feedback.items():
            found = self._rewards.get(place, set())
            if len(found) > 1:
                problems.append(_problem("conflicting_receipts", "feedback", place, sorted(found)))
            if found:
                outcomes[min(found)] += 1
            elif ("feedback", *place) in self._letters:
                outcomes["invalid"] += 1
            elif self._forgotten(place[0], time_ms):
                account.forgotten += 1
            elif self._deadline.passed(place[0], time_ms):
                account.missing += 1
                problems.append(_problem("no_receipt", "feedback", place))
            else:
                account.in_flight += 1
        account.outcomes = dict(sorted(outcomes.items()))
        return account

    def _trajectory_account(self, chain: list[ModelUpdate], problems: list[Problem]) -> Account:
        account, outcomes = Account(records=len(self._trajectories)), Counter[str]()
        decided: set[Place] = set()
        trained: dict[str, Place] = {}
        starts = self._starts.get("trajectories", {})
        for version, places, expired in decisions(chain, starts, problems):
            here = {p for p in places if p in self._trajectories}
            decided |= here
            used: set[Place] = set()
            forgotten: set[Place] = set()
            for place in sorted(here):
                found = self._trainer.get((version, place), set())
                if len(found) > 1:
                    problems.append(
                        _problem("conflicting_receipts", "trajectories", place, sorted(found))
                    )
                if found:
                    outcome = min(found)
                elif place in expired:
                    outcome = "stale"
                elif ("trajectories", *place) in self._letters:
                    outcome = "dead_letter"
                elif self._forgotten(place[0], self._trajectories[place][1]):
                    forgotten.add(place)
                    continue
                else:
                    account.missing += 1
                    problems.append(_problem("no_receipt", "trajectories", place, f"v{version}"))
                    continue
                outcomes[outcome] += 1
                if outcome in _USED:
                    used.add(place)
                subject = self._trajectories[place][0] or ""
                if outcome == "trained" and trained.setdefault(subject, place) != place:
                    problems.append(_problem("trained_twice", "trajectories", place, subject))
            account.forgotten += len(forgotten)
            self._check_ledger(version, used, forgotten, problems)
        chained = {u.version for u in chain}
        for version, place in self._trainer:
            if version in chained and place in self._trajectories and place not in decided:
                problems.append(_problem("stray_receipt", "trajectories", place, f"v{version}"))
        account.in_flight = len(self._trajectories.keys() - decided)
        account.outcomes = dict(sorted(outcomes.items()))
        return account

    def _strays(self, chain: list[ModelUpdate]) -> int:
        """Trainer's receipts that are not of this chain."""
        chained = {u.version for u in chain}
        return sum(version not in chained for version, _ in self._trainer)

    def _check_ledger(
        self, version: int, used: set[Place], forgotten: set[Place], problems: list[Problem]
    ) -> None:
        inputs = {p: n for p, n in self._inputs.get(version, {}).items() if p in self._trajectories}
        for place in sorted(p for p, count in inputs.items() if count > 1):
            problems.append(_problem("trained_twice", "trajectories", place, f"v{version}"))
        for place in sorted(used - inputs.keys()):
            problems.append(_problem("not_in_ledger", "trajectories", place, f"v{version}"))
        for place in sorted(inputs.keys() - used - forgotten):
            problems.append(_problem("not_receipted", "trajectories", place, f"v{version}"))


def read(
    log: Log,
    wire: Wire,
    *,
    model: str,
    prefix: str = "",
    deadline: Deadline | None = None,
    trust: Iterable[Path | str] = (),
) -> Audit:
    """An :class:`Audit` fed with everything that is on the log now. ``trust``: files of public
    keys; none: signatures are not looked at. Raises LogError, SettingsError for a key file that is
    none."""
    from tailrace.recount import Reader

    return Reader(log, wire, model=model, prefix=prefix, deadline=deadline, trust=trust).read()


def in_words(report: Report) -> list[str]:
    """The report for people, some lines."""
    lines = [f"model {report.model}, head {report.head}, {report.versions} versions in its chain"]
    for name, account in (("feedback", report.feedback), ("trajectories", report.trajectories)):
        parts = [f"{outcome} {count}" for outcome, count in account.outcomes.items()]
        parts += [f"in flight {account.in_flight}", f"missing {account.missing}"]
        parts += [f"forgotten {account.forgotten}"] if account.forgotten else []
        lines.append(f"{name}: {account.records} records = {' + '.join(parts)}")
    for problem in report.problems[:_SHOWN]:
        where = problem.where
        place = f" {where.topic}/{where.partition}/{where.offset}" if where else ""
        version = f" version {problem.version}" if problem.version is not None else ""
        lines.append(f"{problem.kind}:{place}{version} {problem.detail}".rstrip())
    if len(report.problems) > _SHOWN:
        lines.append(f"... and {len(report.problems) - _SHOWN} more (see --json)")
    lines.append("the account balances" if report.ok else f"{len(report.problems)} problems")
    return lines


def _problem(kind: str, topic: str, place: Place, detail: object = "") -> Problem:
    where = Coordinates(topic=topic, partition=place[0], offset=place[1])
    return Problem(kind=kind, where=where, detail=str(detail))
