"""When each table key may be deleted: for its age, or because there are newer ones. Pure.

An interaction's facts go first, then what was said of it, then the verdicts that decided about
either; until a key is deleted a worker that starts anew takes it up, and must find what it needs.
Called by the memory with each fact, and by the join at each tick.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.rewards import facts, naming
from services.rewards.account import Account, Heard
from services.rewards.agenda import Agenda
from services.rewards.facts import OutputFact, PromptFact, Verdict, key_of, parse_key
from services.rewards.session import Session
from services.rewards.spec import Spec
from services.rewards.window import FEEDBACK, NEVER_MS, TURN, VERDICT, Window


class Retention:
    """One partition's. ``account`` and ``sessions`` are the memory's own and change under this."""

    def __init__(
        self,
        spec: Spec,
        partition: int,
        store: facts.Reader,
        account: Account,
        sessions: Mapping[str, Session],
    ) -> None:
        self.window = Window(spec.max_records)
        self._spec = spec
        self._partition = partition
        self._account = account
        self._sessions = sessions
        self._expiry: Agenda[bytes] = Agenda(lambda key: store.get(key) is not None)
        self._held_ms = NEVER_MS
        """How long verdicts are needed for a session's feedback that outlives its age."""

    def turn(self, kind: str, fact: PromptFact | OutputFact, turn_ms: int) -> None:
        """A prompt or an output."""
        key = key_of(self._partition, kind, fact.offset)
        self.expire(key, turn_ms + self._spec.lifetime_ms)
        self.window.keep(kind, fact.offset, TURN, key, turn_ms, fact.time_ms)

    def feedback(self, heard: Heard) -> None:
        """A feedback that was let in."""
        fact, spec = heard.fact, self._spec
        key = key_of(self._partition, "feedback", fact.offset)
        newest_ms = max(fact.time_ms, heard.newest_ms)
        self.expire(key, newest_ms + spec.lifetime_ms + spec.slack_ms)
        self.window.keep("feedback", fact.offset, FEEDBACK, key, heard.newest_ms, fact.time_ms)

    def verdict(self, key: bytes, verdict: Verdict) -> None:
        """Verdicts outlive what they decided; those facts are known by now, or gone."""
        # What moved the cut is there until it has moved on.
        newest_ms = verdict.evicted_ms + 1 if verdict.evicted_ms else NEVER_MS
        for closing in verdict.closings:
            newest_ms = max(newest_ms, naming.turn_time_ms(closing.interaction_id))
        last, last_ms = NEVER_MS, verdict.time_ms
        for settled in verdict.settled:
            heard = self._account.by_offset.get(settled.offset)
            if heard is not None:
                last, last_ms = max(last, settled.offset), max(last_ms, heard.fact.time_ms)
                newest_ms = max(newest_ms, heard.newest_ms)
        if last < 0:
            self.window.ripen(newest_ms, VERDICT, key)
        else:
            self.window.keep("feedback", last, VERDICT, key, newest_ms, NEVER_MS)
        last_ms = max(last_ms, newest_ms)
        self.expire(key, last_ms + self._spec.lifetime_ms + 2 * self._spec.slack_ms)

    def expire(self, key: bytes, time_ms: int) -> None:
        """Have a table key offered for deletion once the log is past a time."""
        self._expiry.add(time_ms, key)

    def expired(self, time_ms: int) -> list[bytes]:
        """Keys whose time has come, in the order of deletion; each is given once."""
        found: list[tuple[int, bytes]] = []
        spec = self._spec
        for key in self._expiry.before(time_ms):
            rank, needed_ms = self._needed(key)
            until_ms = needed_ms + spec.lifetime_ms + rank * spec.slack_ms
            if until_ms >= time_ms:
                self.expire(key, until_ms)
            else:
                found.append((rank, key))
        # What was said of a turn came a horizon after it at most.
        self.window.prune(time_ms - spec.horizon_ms - spec.lifetime_ms - 3 * spec.slack_ms)
        return [key for _, key in sorted(found)]

    def evicted(self, cut_ms: int) -> list[bytes]:
        """Keys that nothing needs once the cut is here, in the order of deletion; each is given
        once."""
        found: list[tuple[int, bytes]] = []
        for key in self.window.deleted(cut_ms):
            rank, needed_ms = self._needed(key)
            if needed_ms > cut_ms:
                self.window.ripen(needed_ms, rank, key)
            else:
                found.append((rank, key))
        return [key for _, key in sorted(found)]

    def _needed(self, key: bytes) -> tuple[int, int]:
        """A fact's rank, and when the newest turn began that needs it, where its age does not say
        so: a session's feedback may be about turns whose tokens are ahead of the log."""
        _, kind, offset = parse_key(key)
        if kind == "verdict":
            return VERDICT, self._held_ms
        heard = self._account.by_offset.get(offset) if kind == "feedback" else None
        if heard is None or heard.fact.interaction_id is not None:
            return FEEDBACK if kind == "feedback" else TURN, NEVER_MS
        session = self._sessions.get(heard.fact.subject)
        newest_ms = NEVER_MS
        for turn in () if session is None else session.interactions.values():
            outputs = [e.output for e in turn.entries.values() if e.output is not None]
            if any(output.time_ms <= heard.fact.time_ms for output in outputs):
                newest_ms = max(newest_ms, turn.turn_ms)
        self._held_ms = max(self._held_ms, newest_ms)
        return FEEDBACK, newest_ms
