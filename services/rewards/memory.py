"""The join's index of what is in the store: sessions, entries, what is open and what is due.

Rebuilt from the table after every assignment. It decides nothing; it only must never forget to
have an entry looked at: everything that a record may have changed is dirty until a tick has seen
all of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.rewards import facts, naming
from services.rewards.account import Account, Heard
from services.rewards.agenda import Agenda
from services.rewards.entry import Entry, Interaction
from services.rewards.facts import FeedbackFact, OutputFact, PromptFact, Verdict
from services.rewards.retention import Retention
from services.rewards.session import Session
from services.rewards.spec import Spec
from tailrace import events


class Memory:
    """One partition's index."""

    def __init__(self, spec: Spec, account: Account, partition: int, store: facts.Reader) -> None:
        self.account = account
        self.sessions: dict[str, Session] = {}
        self.open: set[Entry] = set()
        """Outputs that have not closed."""
        self.bare: set[Interaction] = set()
        """Prompts without an output."""
        self.unsettled: set[Heard] = set()
        """Feedback without an outcome."""
        self.dirty: set[Entry | Interaction] = set()
        """To be looked at by the next tick, whatever its time."""
        self.pending: set[Heard] = set()
        """Unsettled feedback that every tick asks about: of sessions, of what was evicted, or past
        the time-out."""
        self.retention = Retention(spec, partition, store, account, self.sessions)
        self._spec = spec
        self._due: Agenda[Entry | Interaction | Heard] = Agenda(self._is_here)
        self._prompts: dict[int, Interaction] = {}
        self._outputs: dict[int, Entry] = {}

    def known_turn(self, event: events.Prompt | events.Output) -> int | None:
        """The offset of the prompt or output that this one repeats (or is)."""
        session = self.sessions.get(naming.session_of(event.interaction_id))
        interaction = None if session is None else session.interactions.get(event.interaction_id)
        if interaction is None:
            return None
        if isinstance(event, events.Prompt):
            return None if interaction.prompt is None else interaction.prompt.offset
        entry = interaction.entries.get(event.choice)
        return None if entry is None or entry.output is None else entry.output.offset

    def take_prompt(self, fact: PromptFact) -> None:
        """Index a prompt."""
        interaction = self._interaction(fact.interaction_id)
        interaction.prompt = fact
        interaction.session.changed()
        if fact.group_id is not None:
            self.soil(interaction.session)  # one turn less between the others
        self._prompts[fact.offset] = interaction
        self.dirty.update(interaction.entries.values())
        if not any(entry.output for entry in interaction.entries.values()):
            self.bare.add(interaction)
        # Also where an output is known: it may lie beyond the ends of the tick that gives up.
        self.schedule(fact.time_ms + self._spec.orphan_ms, interaction)
        self.retention.turn("prompts", fact, interaction.turn_ms)

    def take_output(self, fact: OutputFact) -> None:
        """Index an output."""
        interaction = self._interaction(fact.interaction_id)
        entry = interaction.entry(fact.choice)
        entry.output = fact
        session = interaction.session
        session.changed()
        if any(heard.fact.time_ms >= fact.time_ms for heard in session.heard.values()):
            self.soil(session)  # one turn more between the others
        self._outputs[fact.offset] = entry
        if interaction.orphaned_by is None:
            self.open.add(entry)
        self.bare.discard(interaction)
        self.dirty.add(entry)
        self.retention.turn("outputs", fact, interaction.turn_ms)

    def take_feedback(self, fact: FeedbackFact) -> Heard:
        """Index a feedback record that was let in."""
        heard, spec = self.account.take(fact), self._spec
        self.retention.feedback(heard)
        if not fact.retract:
            if fact.interaction_id is None:
                session = self._session(fact.subject)
                session.heard[fact.offset] = heard
                session.changed()
                self.pending.add(heard)
            for interaction_id, choice in fact.answers:
                self._interaction(interaction_id).entry(choice).heard[fact.offset] = heard
            self.unsettled.add(heard)
            self.schedule(fact.time_ms + spec.orphan_ms, heard)
        target = None if fact.target is None else self.account.by_offset.get(fact.target)
        for touched in (heard, target) if target is not None else (heard,):
            self.dirty.update(self.about(touched.fact))
        return heard

    def about(self, fact: FeedbackFact) -> Iterator[Entry]:
        """The entries that a feedback may bear upon, as far as they are remembered."""
        session = self.sessions.get(naming.session_of(fact.subject))
        if session is None:
            return
        if fact.interaction_id is None:
            for interaction in session.interactions.values():
                yield from interaction.entries.values()
        elif not fact.retract:
            for interaction_id, choice in fact.answers:
                named = session.interactions.get(interaction_id)
                if named is not None and choice in named.entries:
                    yield named.entries[choice]

    def apply(self, verdict: Verdict) -> None:
        """Take note of what a tick decided. What the horizon has passed is no longer here."""
        for closing in verdict.closings:
            session = self.sessions.get(naming.session_of(closing.interaction_id))
            interaction = session and session.interactions.get(closing.interaction_id)
            if not interaction:
                continue
            if closing.choice < 0:
                interaction.orphaned_by = verdict.tick
                self.bare.discard(interaction)
                self.open.difference_update(interaction.entries.values())
                continue
            entry = interaction.entries.get(closing.choice)
            if entry is None or entry.output is None or not (closing.orphan or interaction.prompt):
                self._drop(interaction)  # a worker was killed while it deleted this
                continue
            self.open.discard(entry)
            if closing.orphan:
                entry.orphaned_by = verdict.tick
            else:
                entry.closed(verdict.tick, closing)
        for settled in verdict.settled:
            heard = self.account.by_offset.get(settled.offset)
            if heard is not None:
                heard.settled_by = verdict.tick
                self.unsettled.discard(heard)
                self.pending.discard(heard)

    def schedule(self, time_ms: int, what: Entry | Interaction | Heard) -> None:
        """Have something looked at by the first tick that is not before a time."""
        self._due.add(time_ms, what)

    def due(self, time_ms: int) -> Iterator[Entry | Interaction | Heard]:
        """What was scheduled up to now; each is given once."""
        return self._due.before(time_ms + 1)

    def leaving(self, cut_ms: int) -> list[Interaction]:
        """The interactions that began up to a cut; each is given once."""
        found = []
        for interaction_id in self.retention.window.leaving(cut_ms):
            session = self.sessions.get(naming.session_of(interaction_id))
            if session is not None and interaction_id in session.interactions:
                found.append(session.interactions[interaction_id])
        return found

    def soil(self, session: Session) -> None:
        """Have what was said about a session looked at anew: its turns are others now."""
        if session.heard:
            for interaction in session.interactions.values():
                self.dirty.update(interaction.entries.values())

    def ask(self, entry: Entry) -> None:
        """Have each tick ask about what was said of an entry, until it has an outcome."""
        self.pending.update(one for one in entry.heard.values() if one in self.unsettled)

    def release(self, interaction: Interaction) -> tuple[bool, int]:
        """An evicted interaction waits for nothing. Gives whether its prompt, and how many of its
        outputs, nothing was decided about."""
        entries = interaction.entries.values()
        lost = interaction in self.bare, len(self.open.intersection(entries))
        self.bare.discard(interaction)
        self.open.difference_update(entries)
        self.dirty.discard(interaction)
        self.dirty.difference_update(entries)
        return lost

    def forget(self, kind: str, offset: int) -> None:
        """Drop a fact whose key is deleted."""
        if kind == "verdict":
            self.retention.window.passed(offset)
            return
        if kind == "feedback":
            heard = self.account.by_offset.get(offset)
            if heard is not None:
                self._drop_heard(heard)
            self.account.forget(offset)
            return
        interaction = None
        if kind == "prompts":
            interaction = self._prompts.pop(offset, None)
        elif kind == "outputs" and (entry := self._outputs.pop(offset, None)) is not None:
            interaction = entry.interaction
        if interaction is not None:
            self._drop(interaction)

    def _is_here(self, what: Entry | Interaction | Heard) -> bool:
        if isinstance(what, Heard):
            return what in self.unsettled
        interaction = what if isinstance(what, Interaction) else what.interaction
        return interaction.session.interactions.get(interaction.id) is interaction

    def _drop(self, interaction: Interaction) -> None:
        session = interaction.session
        if session.interactions.get(interaction.id) is interaction:
            del session.interactions[interaction.id]
        session.changed()
        for entry in interaction.entries.values():
            self.ask(entry)
        self.release(interaction)
        self._drop_empty(session)

    def _drop_heard(self, heard: Heard) -> None:
        """Drop a feedback, and what nobody but it spoke of."""
        self.unsettled.discard(heard)
        self.pending.discard(heard)
        session = self.sessions.get(naming.session_of(heard.fact.subject))
        if session is None:
            return
        if heard.fact.interaction_id is None:
            session.heard.pop(heard.fact.offset, None)
        for entry in [] if heard.fact.interaction_id is None else list(self.about(heard.fact)):
            interaction = entry.interaction
            entry.heard.pop(heard.fact.offset, None)
            if entry.output is None and not entry.heard:
                del interaction.entries[entry.choice]
                self.dirty.discard(entry)
            if interaction.prompt is None and not interaction.entries:
                self._drop(interaction)
        self._drop_empty(session)

    def _drop_empty(self, session: Session) -> None:
        empty = not session.interactions and not session.heard
        if empty and self.sessions.get(session.id) is session:
            del self.sessions[session.id]

    def _session(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            self.sessions[session_id] = Session(session_id, self._spec)
        return self.sessions[session_id]

    def _interaction(self, interaction_id: str) -> Interaction:
        session = self._session(naming.session_of(interaction_id))
        if interaction_id not in session.interactions:
            made = session.interactions[interaction_id] = Interaction(interaction_id, session)
            self.retention.window.turn(made.turn_ms, made.id)
        return session.interactions[interaction_id]
