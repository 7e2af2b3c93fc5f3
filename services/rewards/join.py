"""The join of one partition: records in, trajectories and receipts out. Pure, but for its store.

    prompts ─┐
    outputs ─┼─> on_record ─> facts in the store; receipts that can be given at once
    feedback ┘
    ticks ────> on_record ─> waits until every input has been read to the tick's ends, then
                             decides closings, revisions, orphans and outcomes ─> a Verdict in
                             the store ─> trajectories, receipts

Invariants
- Everything that is decided at a tick is a function of the records below the tick's ends and of
  earlier ticks: not of the interleaving of topics, nor of a restart.
- The store is inserted into, once per source coordinate, before what follows from it is emitted.
- After an assignment (:meth:`Join.restore`) reading starts at the committed offsets while the
  store may be ahead. Records that are read again emit what they emitted; ticks that were not yet
  passed by the committed offsets act again and emit their stored verdicts.
- Every feedback record gets exactly one outcome.

The Faust shell (:mod:`services.rewards.app`) calls this; tests drive it with a dict for a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from services.rewards import emission, facts, naming
from services.rewards.account import Account
from services.rewards.deciding import Decider
from services.rewards.emission import DeadLetter, Out
from services.rewards.entry import View
from services.rewards.facts import Verdict, key_of
from services.rewards.intake import Intake
from services.rewards.memory import Memory
from services.rewards.spec import Spec
from services.rewards.ticks import INPUTS, Ticks
from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.log.base import LogRecord

KINDS = (*INPUTS, "ticks")


class Join:
    """One partition's state. ``partitions``: how many the session topics have."""

    def __init__(self, spec: Spec, partition: int, partitions: int, store: facts.Store) -> None:
        self.partition = partition
        self.spec = spec
        self.counts: Counter[tuple[str, str]] = Counter()
        """What was neither used nor answered: (kind of record, reason)."""
        self.positions = dict.fromkeys(KINDS, 0)
        """The next offset of each topic: everything below was read (or can never be)."""
        self._store = store
        self._committed = dict(self.positions)
        self._memory = Memory(spec, Account(spec), partition, store)
        self._decider = Decider(spec, self._memory, store, partition, self.counts)
        self._intake = Intake(spec, self._memory, store, partition, partitions, self.counts)
        self._ticked_ms = 0
        self._ticks = Ticks(partition, store, self.positions, self._committed)

    @property
    def open_entries(self) -> int:
        """Answers and prompts that wait for something."""
        return len(self._memory.open) + len(self._memory.bare)

    @property
    def busy(self) -> bool:
        """Whether a tick could have something to do."""
        memory = self._memory
        return bool(self.open_entries or memory.unsettled or memory.dirty or self._ticks)

    @property
    def waiting_ticks(self) -> int:
        """Ticks whose ends have not been read yet."""
        return len(self._ticks)

    def waits_for(self) -> tuple[str, int, int] | None:
        """What the first waiting tick lacks: kind, position and end; None: nothing waits."""
        return self._ticks.waits_for()

    def restore(self, items: Iterable[tuple[bytes, bytes]], committed: Mapping[str, int]) -> None:
        """Take up the table's values of this partition, and read on from the committed offsets."""
        kinds: dict[str, list[tuple[int, bytes]]] = {}
        for key, value in items:
            partition, kind, offset = facts.parse_key(key)
            assert partition == self.partition
            if kind == "verdict":
                verdict = msgspec.msgpack.decode(value, type=Verdict)
                self._ticks.verdicts.setdefault(offset, []).append(verdict)
            else:
                kinds.setdefault(kind, []).append((offset, value))
        for kind in kinds:
            kinds[kind].sort()
        for offset, value in kinds.get("prompts", ()):
            self._memory.take_prompt(facts.prompt_fact(offset, value))
        for offset, value in kinds.get("outputs", ()):
            self._memory.take_output(facts.output_fact(offset, value))
        for _, value in kinds.get("feedback", ()):
            self._memory.take_feedback(msgspec.msgpack.decode(value, type=facts.FeedbackFact))
        for offset, value in kinds.get("refused", ()):
            self._intake.keep_refusal(offset, msgspec.msgpack.decode(value, type=facts.Refusal))
        for offset in sorted(self._ticks.verdicts):
            self._ticks.verdicts[offset].sort(key=lambda verdict: verdict.part)
            for verdict in self._ticks.verdicts[offset]:
                self._memory.apply(verdict)
                if verdict.evicted_ms:
                    self._memory.retention.window.cut(offset, verdict.evicted_ms)
                key = key_of(self.partition, "verdict", offset, verdict.part)
                self._memory.retention.verdict(key, verdict)
        self.positions.update(committed)
        self._committed.update(committed)
        self._ticks.restore(kinds.get("ticks", ()))

    def on_committed(self, offsets: Mapping[str, int]) -> None:
        """Learn which offsets the group has committed: what they passed is not emitted again."""
        for kind, offset in offsets.items():
            self._committed[kind] = max(self._committed[kind], offset)

    def on_gap(self, kind: str, start: int, end: int) -> list[Out]:
        """Learn that ``[start, end)`` of a topic has nothing to read (control records, expired)."""
        if self.positions[kind] != start:
            return []
        self.positions[kind] = end
        return self._run()

    def on_refused(self, record: LogRecord, kind: str, error: InvalidRecord) -> list[Out]:
        """A record that no schema fits, or that broke."""
        if not self._advance(record, kind):
            return []
        return self._intake.refuse(record, kind, error) + self._run()

    def on_record(self, record: LogRecord, kind: str, event: events.Struct) -> list[Out]:
        """A record of one of the four topics, in offset order within each of them."""
        if not self._advance(record, kind):
            return []
        match event:
            case events.Prompt() | events.Output():
                out = self._intake.turn(record, kind, event)
            case events.Feedback():
                out = self._intake.feedback(record, event)
            case events.Tick():
                out = self._on_tick(record, event)
            case _:
                raise AssertionError(f"{type(event).__name__} on {kind}")
        return out + self._run()

    def _advance(self, record: LogRecord, kind: str) -> bool:
        assert record.partition == self.partition
        if record.offset < self.positions[kind]:
            return False
        self.positions[kind] = record.offset + 1
        return True

    def _on_tick(self, record: LogRecord, tick: events.Tick) -> list[Out]:
        if tick.partition != self.partition or not set(INPUTS) <= set(tick.ends):
            self.counts["ticks", "malformed"] += 1
            return [DeadLetter(record, "malformed_tick", f"of partition {tick.partition}")]
        if tick.event_time_ms > 0:  # a maker's first tick knows no time: it decides nothing
            self._ticks.add(record.offset, tick)
        return []

    def _run(self) -> list[Out]:
        """Let ticks act, in log order, as far as their ends are reached."""
        out: list[Out] = []
        for offset, tick in self._ticks.ready():
            out += self._act(offset, tick)
        return out

    def _act(self, offset: int, tick: events.Tick) -> list[Out]:
        parts = self._ticks.verdicts.pop(offset, [])
        window = self._memory.retention.window
        gone_ms, wanted_ms = window.slide(offset, tick.ends)
        evicted_ms = max(gone_ms, parts[0].evicted_ms) if parts else wanted_ms
        prompts, outputs, feedback = (tick.ends[kind] for kind in INPUTS)
        view = View(*(offset, tick.event_time_ms, prompts, outputs, feedback, gone_ms, evicted_ms))
        closings, settled = self._decider.decide(view)
        moved_ms = evicted_ms if evicted_ms > gone_ms else 0
        if moved_ms:
            window.cut(offset, moved_ms)
        decided = list(facts.in_parts(closings, settled))
        if moved_ms and not (parts or decided):
            decided = [([], [])]
        for now, also in decided:
            verdict = Verdict(
                tick=offset,
                time_ms=view.time_ms,
                part=len(parts),
                closings=now,
                settled=also,
                evicted_ms=moved_ms,
            )
            key = key_of(self.partition, "verdict", offset, verdict.part)
            self._store.insert(key, facts.encode(verdict))
            self._memory.retention.verdict(key, verdict)
            parts.append(verdict)
        out = [item for verdict in parts for item in self._emit(verdict)]
        self._ticks.acted(offset, tick, parts)
        # A tick later than they expire: what this one closed, the next one may still correct.
        doomed = self._memory.retention.expired(self._ticked_ms)
        self._ticks.doom(offset, tick, doomed + self._memory.retention.evicted(evicted_ms))
        self._ticked_ms = tick.event_time_ms
        for key in self._ticks.collect():
            self._delete(key, tick.event_time_ms)
        return out

    def _emit(self, verdict: Verdict) -> Iterable[Out]:
        for closing in verdict.closings:
            if not closing.orphan:
                yield self._decider.trajectory(closing, verdict.time_ms)
                continue
            kind = "prompts" if closing.choice < 0 else "outputs"
            evicted = naming.turn_time_ms(closing.interaction_id) <= verdict.evicted_ms
            self.counts[kind, "evicted" if evicted else "orphan"] += 1
        for settled in verdict.settled:
            fact = self._memory.account.by_offset[settled.offset].fact
            yield emission.settled(self.partition, fact, settled, verdict.time_ms)

    def _delete(self, key: bytes, time_ms: int) -> None:
        if self._store.get(key) is None:
            return  # it was both too old and too much
        _, kind, offset = facts.parse_key(key)
        source = {"verdict": "ticks", "refused": "feedback"}.get(kind, kind)
        if self._committed[source] <= offset or (
            kind == "verdict" and offset in self._ticks.verdicts
        ):
            self._memory.retention.expire(key, time_ms + 1)
            return
        self._memory.forget(kind, offset)
        if kind == "refused":
            self._intake.refused.pop(offset, None)
        self._store.delete(key)
