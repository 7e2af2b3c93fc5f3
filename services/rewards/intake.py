"""What becomes of a record as it is read, before any tick: a fact, a receipt, a dead letter, or a
count. Pure, but for the store.

A fact is in the store before it is in the memory, and before anything that follows from it is
emitted. A record that is read again after an assignment emits what it emitted. Called by the join.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from services.rewards import admission, emission, facts, naming, session
from services.rewards.emission import DeadLetter, Out
from services.rewards.facts import key_of
from services.rewards.memory import Memory
from services.rewards.spec import Spec
from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.log.base import LogRecord
from tailrace.traces import of_record


class Intake:
    """One partition's. ``counts``: what was neither used nor answered."""

    def __init__(
        self,
        spec: Spec,
        memory: Memory,
        store: facts.Store,
        partition: int,
        partitions: int,
        counts: Counter[tuple[str, str]],
    ) -> None:
        self.refused: dict[int, facts.Refusal] = {}
        """Feedback that no schema fitted, by offset."""
        self._spec = spec
        self._memory = memory
        self._store = store
        self._partition = partition
        self._partitions = partitions
        self._counts = counts

    def refuse(self, record: LogRecord, kind: str, error: InvalidRecord) -> list[Out]:
        """A record that no schema fits, or that broke."""
        out: list[Out] = [DeadLetter(record, error.reason, str(error))]
        if kind != "feedback":
            self._counts[kind, error.reason] += 1
            return out
        if error.reason == "unknown_schema" and record.offset not in self.refused:
            # The schema may be known when this is read again; the outcome is out by then.
            refusal = facts.Refusal(error.reason, str(error), record.time_ms)
            key = key_of(self._partition, "refused", record.offset)
            self._store.insert(key, facts.encode(refusal))
            self.keep_refusal(record.offset, refusal)
        return [emission.receipt(record, "", "invalid", error.reason, self._partitions), *out]

    def keep_refusal(self, offset: int, refusal: facts.Refusal) -> None:
        """Index a refusal that is in the store."""
        self.refused[offset] = refusal
        key = key_of(self._partition, "refused", offset)
        self._memory.retention.expire(key, 0)  # once its offset is committed it is not read again

    def turn(self, record: LogRecord, kind: str, event: events.Prompt | events.Output) -> list[Out]:
        """A prompt or an output: a fact, or nothing but a count."""
        try:
            admission.check_turn(record, event, self._partitions, self._spec.horizon_ms)
        except admission.Refused as refused:
            self._counts[kind, refused.reason] += 1
            return (
                []
                if refused.outcome == "late"
                else [DeadLetter(record, refused.reason, str(refused))]
            )
        if isinstance(event, events.Prompt) and event.learn is not True:
            event = msgspec.structs.replace(event, content=None)
        key = key_of(self._partition, kind, record.offset)
        mark = b""
        if self._spec.implicit and isinstance(event, events.Prompt) and event.content is not None:
            mark = session.mark(event.content.messages)
        value = facts.encode(facts.Kept(record.time_ms, event, mark, of_record(record.headers)))
        # First, and of repetitions too: whether those are known is no function of the log.
        if len(value) > facts.MAX_VALUE_BYTES:
            self._counts[kind, "too_large"] += 1
            return [DeadLetter(record, "too_large", f"{len(value)} bytes to keep")]
        known = self._memory.known_turn(event)
        if known == record.offset:
            return []
        if known is not None:
            self._counts[kind, "repeated"] += 1
            return []
        if naming.turn_time_ms(event.interaction_id) <= self._memory.retention.window.cut_ms:
            self._counts[kind, "evicted"] += 1  # every tick that could see it says so
            return []
        self._store.insert(key, value)
        if isinstance(event, events.Prompt):
            self._memory.take_prompt(facts.prompt_fact(record.offset, value))
        else:
            self._memory.take_output(facts.output_fact(record.offset, value))
        return []

    def feedback(self, record: LogRecord, event: events.Feedback) -> list[Out]:
        """A record of ``feedback``: an outcome that can be told at once, or a fact."""
        refusal = self.refused.get(record.offset)
        if refusal is not None:
            return self.refuse(record, "feedback", InvalidRecord(refusal.reason, refusal.detail))

        def answer(outcome: str, reason: str | None = None) -> Out:
            return emission.receipt(record, event.feedback_id, outcome, reason, self._partitions)

        try:
            admission.check_feedback(record, event, self._partitions, self._spec.horizon_ms)
        except admission.Refused as refused:
            if refused.outcome == "late":
                outcome = "no_target" if event.action == "retract" else "late"
                return [answer(outcome, refused.reason)]
            letter = DeadLetter(record, refused.reason, str(refused))
            return [answer(refused.outcome, refused.reason), letter]
        repeated = self._memory.account.repeated(record, event)
        if repeated is not None:
            return [answer(repeated)]
        heard = self._memory.account.by_offset.get(record.offset)
        if heard is None:
            fact = self._memory.account.fact_of(record, event)
            key = key_of(self._partition, "feedback", record.offset)
            self._store.insert(key, facts.encode_feedback(fact, event))
            heard = self._memory.take_feedback(fact)
        if heard.fact.retract:
            return [answer("no_target" if heard.fact.target is None else "applied")]
        return []
