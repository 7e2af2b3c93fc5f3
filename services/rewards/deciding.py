"""What a tick decides: closings, revisions, orphans, outcomes. Reads the index, asks the entries.

The order of decisions is fixed (by interaction and choice, outcomes by offset), so a verdict that
was stored in part is completed to the same parts. Called by the join.
"""

from __future__ import annotations

from collections import Counter
import json

from services.rewards import emission, facts, naming, session
from services.rewards.account import Heard
from services.rewards.entry import Entry, Interaction, View
from services.rewards.facts import Closing, FeedbackFact, Settled, Verdict, key_of
from services.rewards.memory import Memory
from services.rewards.score import Said, Score, score
from services.rewards.spec import Spec
from services.rewards.verifiers import NOTHING, Answer, Verifiers
from tailrace import events, ids

EVICTED = "evicted"
RANK = ("joined", "corrected", "late", EVICTED, "unconsented", "replaced", "withdrawn", "orphan")
"""Of several fates (session feedback has one for each turn) the first of these is the outcome; what
was evicted is late."""


class Decider:
    """Decides for one partition. ``store`` gives back the content of prompts and outputs."""

    def __init__(
        self,
        spec: Spec,
        memory: Memory,
        store: facts.Reader,
        partition: int,
        counts: Counter[tuple[str, str]],
    ) -> None:
        self._spec = spec
        self._hash = spec.hash()
        self._verifiers = Verifiers(spec.verifiers)
        self._memory = memory
        self._counts = counts
        self._store = store
        self._partition = partition

    def decide(self, view: View) -> tuple[list[Closing], list[Settled]]:
        """What this tick decides and the index does not know yet; the index then does."""
        memory = self._memory
        entries: dict[Entry, None] = {}
        bare: dict[Interaction, None] = {}
        leaving = memory.leaving(view.evicted_ms)
        left = [entry for interaction in leaving for entry in interaction.entries.values()]
        for what in (*memory.due(view.time_ms), *memory.dirty, *leaving, *left):
            if isinstance(what, Heard):
                memory.pending.update({what} & memory.unsettled)
            elif isinstance(what, Interaction):
                if not view.gone(what.id):
                    bare[what] = None
            elif not view.gone(what.interaction.id):
                entries[what] = None
            else:
                memory.ask(what)
        for entry in left:
            memory.ask(entry)
        memory.dirty.clear()
        closings = [c for entry in entries if (c := self._look(entry, view)) is not None]
        closings += [c for one in bare if (c := self._look_bare(one, view)) is not None]
        closings.sort(key=lambda closing: (closing.interaction_id, closing.choice))
        memory.apply(Verdict(tick=view.offset, time_ms=view.time_ms, closings=closings))
        for entry in entries:
            if entry.hidden(view):
                memory.dirty.add(entry)
        settled = self._settle_all(list(entries), list(bare), view)
        memory.apply(Verdict(tick=view.offset, time_ms=view.time_ms, settled=settled))
        for interaction in leaving:
            prompt, outputs = memory.release(interaction)
            if not view.gone(interaction.id):  # else an earlier tick's, kept over an assignment
                self._counts["prompts", EVICTED] += prompt
                self._counts["outputs", EVICTED] += outputs
            memory.soil(interaction.session)  # one turn less between the others
        return closings, settled

    def trajectory(self, closing: Closing, time_ms: int) -> emission.Send:
        """The trajectory of a closing, from the store."""
        known = self._memory.sessions[naming.session_of(closing.interaction_id)]
        entry = known.interactions[closing.interaction_id].entry(closing.choice)
        said = [self._memory.account.by_offset[offset].fact for offset in closing.inputs]
        prompt, output = self._content(entry)
        edit = self._demonstration(said)
        return emission.trajectory(self._partition, closing, prompt, output, said, time_ms, edit)

    def _demonstration(self, said: list[FeedbackFact]) -> str | None:
        """The text of the newest edit of the answer."""
        for fact in reversed(said):
            if fact.kind == "demonstration" and fact.interaction_id is not None:
                value = self._store.get(key_of(self._partition, "feedback", fact.offset))
                return None if value is None else facts.text(value)
        return None

    def _look(self, entry: Entry, view: View) -> Closing | None:
        """Close or revise an entry, or note when to look again."""
        spec, output, interaction = self._spec, entry.output, entry.interaction
        if entry.closings:
            return self._revise(entry, view)
        if entry.orphaned_by is not None or interaction.orphaned_by is not None:
            return None
        if output is None or output.offset >= view.outputs:
            return None
        evicted = view.evicts(interaction.id)
        if not interaction.seen(view):
            if evicted or output.time_ms + spec.orphan_ms <= view.time_ms:
                return Closing(interaction_id=interaction.id, choice=entry.choice, orphan=True)
            self._memory.schedule(output.time_ms + spec.orphan_ms, entry)
            return None
        deadline_ms = entry.deadline_ms(spec, view)
        if deadline_ms > view.time_ms and not evicted:
            self._memory.schedule(deadline_ms, entry)
            return None
        return self._closing(entry, view, deadline_ms, view.feedback)

    def _revise(self, entry: Entry, view: View) -> Closing | None:
        (_, first), (tick, last) = entry.closings[0], entry.closings[-1]
        assert entry.interaction.prompt is not None
        if tick >= view.offset or not entry.interaction.prompt.learn:
            return None
        said, _ = entry.inputs(self._spec, view, first.deadline_ms)
        if [heard.fact.offset for heard in said] == last.inputs:
            return None
        return self._closing(entry, view, first.deadline_ms, first.feedback_end)

    def _closing(self, entry: Entry, view: View, deadline_ms: int, feedback_end: int) -> Closing:
        interaction, spec = entry.interaction, self._spec
        assert interaction.prompt is not None
        last = entry.closings[-1][1] if entry.closings else None
        said: list[Heard] = []
        shares: list[float] = []
        windows: dict[str, int] = {}
        signals: dict[str, bool] = {}
        cut: set[str] = set()
        result = Score(None, [])
        if interaction.prompt.learn:
            said, lost = entry.inputs(spec, view, deadline_ms)
            shares = [entry.share(heard, view) or 0.0 for heard in said]
            if last is None:
                windows = entry.windows(spec, deadline_ms)
                cut = entry.cut_short(spec, view, deadline_ms)
                signals = session.signals(entry, spec, view, deadline_ms)
            else:
                signals = entry.closings[0][1].signals
            told = [
                Said(heard.fact, share, heard.fact.rejects(interaction.id, entry.choice))
                for heard, share in zip(said, shares, strict=True)
            ]
            result = self._score(entry, told, lost, cut, signals)
        revision = 0 if last is None else last.revision + 1
        inputs = [f"r{revision}", *(heard.fact.feedback_id for heard in said)]
        return Closing(
            interaction_id=interaction.id,
            choice=entry.choice,
            revision=revision,
            trajectory_id=ids.trajectory(interaction.id, entry.choice, inputs),
            supersedes=None if last is None else last.trajectory_id,
            deadline_ms=deadline_ms,
            feedback_end=feedback_end,
            windows=windows,
            signals=signals if last is None else {},
            inputs=[heard.fact.offset for heard in said],
            shares=shares if any(share != 1.0 for share in shares) else [],
            reward=result.reward,
            components=result.components,
            spec=self._hash,
        )

    def _score(
        self,
        entry: Entry,
        said: list[Said],
        lost: set[str],
        cut: set[str],
        signals: dict[str, bool],
    ) -> Score:
        assert entry.output is not None
        if entry.output.failed:
            return Score(None, [])
        answer = self._answer(entry) if self._spec.verifiers else NOTHING
        return score(self._spec, self._verifiers, answer, said, lost, cut, signals)

    def _answer(self, entry: Entry) -> Answer:
        prompt, output = self._content(entry)
        content = output.record.content
        packed = None if content is None else content.token_ids
        return Answer(
            text=_text(content),
            tokens=None if packed is None else len(packed) // 4,
            finish_reason=output.record.finish_reason,
            tags=prompt.record.tags,
        )

    def _content(self, entry: Entry) -> tuple[facts.Kept[events.Prompt], facts.Kept[events.Output]]:
        prompt, output = entry.interaction.prompt, entry.output
        assert prompt is not None and output is not None
        asked = self._store.get(key_of(self._partition, "prompts", prompt.offset))
        answered = self._store.get(key_of(self._partition, "outputs", output.offset))
        assert asked is not None and answered is not None, (
            f"{entry.interaction.id}: content is gone"
        )
        return facts.prompt(asked), facts.output(answered)

    def _look_bare(self, interaction: Interaction, view: View) -> Closing | None:
        """Give up a prompt that no output came for."""
        prompt = interaction.prompt
        if prompt is None or interaction.orphaned_by is not None:
            return None
        outputs = [e.output.offset for e in interaction.entries.values() if e.output is not None]
        if any(offset < view.outputs for offset in outputs):
            return None
        waited = prompt.time_ms + self._spec.orphan_ms <= view.time_ms
        waited = waited or view.evicts(interaction.id)
        if waited and prompt.offset < view.prompts:
            return Closing(interaction_id=interaction.id, choice=-1, orphan=True)
        self._memory.dirty.add(interaction)  # not below this tick's ends yet
        return None

    def _settle_all(
        self, entries: list[Entry], bare: list[Interaction], view: View
    ) -> list[Settled]:
        memory = self._memory
        entries += [entry for interaction in bare for entry in interaction.entries.values()]
        asked = {heard for entry in entries for heard in entry.spoken(view)} & memory.unsettled
        asked |= memory.pending
        found = [s for heard in asked if (s := self._settle(heard, view)) is not None]
        return sorted(found, key=lambda settled: settled.offset)

    def _settle(self, heard: Heard, view: View) -> Settled | None:
        """The outcome of a feedback, once every answer that it is about has decided."""
        fact, spec = heard.fact, self._spec
        if heard.settled_by is not None or fact.offset >= view.feedback:
            return None
        targets = [e for e in self._memory.about(fact) if not view.gone(e.interaction.id)]
        if fact.interaction_id is None:
            now = fact.time_ms <= view.evicted_ms
            if view.time_ms < fact.time_ms and not now:
                return None  # outputs that were appended before it may not have been read yet
            targets = [e for e in targets if _seen(e, view) and e.share(heard, view) is not None]
            now = now or any(view.evicts(entry.interaction.id) for entry in targets)
        else:
            turns = [turn for turn, _ in fact.answers]
            now = any(map(view.evicts, turns)) or all(map(view.gone, turns))
        fates: list[tuple[str, str | None]] = []
        for entry in sorted(targets, key=lambda entry: (entry.interaction.id, entry.choice)):
            fate = entry.fate(heard, spec, view)
            if now and (fate is None or fate[0] == "orphan"):
                fate = EVICTED, None
            if fate is None:
                return None
            fates.append(fate)
        if not fates and not now and fact.time_ms + spec.orphan_ms > view.time_ms:
            return None
        nobody = EVICTED if now else "orphan"
        outcome = min((outcome for outcome, _ in fates), key=RANK.index, default=nobody)
        return Settled(
            offset=fact.offset,
            outcome="late" if outcome == EVICTED else outcome,
            reason=self._reason(outcome, heard),
            trajectories=[trajectory for _, trajectory in fates if trajectory is not None],
        )

    def _reason(self, outcome: str, heard: Heard) -> str | None:
        if outcome == EVICTED:
            return EVICTED
        if outcome == "late":
            return "closed"
        if outcome not in ("joined", "corrected"):
            return None
        if heard.fact.names is not None and heard.fact.target is None:
            return "no_target"
        return None if heard.fact.metric in self._spec.metrics else "no_metric"


def _seen(entry: Entry, view: View) -> bool:
    return entry.output is not None and entry.output.offset < view.outputs


def _text(content: events.OutputContent | None) -> str | None:
    """The answer's text, where the message has any."""
    if content is None or content.message is None:
        return None
    try:
        message = json.loads(content.message)
    except (ValueError, RecursionError):
        return None
    text = message.get("content") if isinstance(message, dict) else message
    return text if isinstance(text, str) else None
