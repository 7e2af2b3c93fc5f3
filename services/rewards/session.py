"""A session, and what one turn of it says about another: whose the session's feedback is, and the
signals that nobody spoke, the next turn and the retry. Pure.

A turn is an interaction with an output below the tick's ends that is not known to be of a group,
and was not evicted before.
Its moment is its first output's append time. Called by the entries, as of a tick.
"""

from __future__ import annotations

from bisect import bisect_right
import hashlib
import json
from typing import TYPE_CHECKING

from services.rewards.spec import Spec
from services.rewards.terms import Metric

if TYPE_CHECKING:
    from services.rewards.account import Heard
    from services.rewards.entry import Entry, Interaction, View
    from services.rewards.facts import FeedbackFact, PromptFact


class Session:
    """The interactions of a session and what was said about it as a whole."""

    __slots__ = ("_tick", "_turns", "_unseen", "heard", "id", "interactions", "spec")

    def __init__(self, session_id: str, spec: Spec) -> None:
        self.id = session_id
        self.spec = spec
        self.interactions: dict[str, Interaction] = {}
        self.heard: dict[int, Heard] = {}
        """By offset."""
        self.changed()

    def changed(self) -> None:
        """Its turns are others now."""
        self._tick = -1
        self._turns: dict[int, list[tuple[int, str]]] = {}
        self._unseen: bool | None = None

    def as_of(self, view: View) -> dict[int, list[tuple[int, str]]]:
        """The turns before each feedback about the session, where they were asked for."""
        if self._tick != view.offset:
            self.changed()
            self._tick = view.offset
        return self._turns

    def unseen(self, view: View) -> bool:
        """Whether it holds a turn, or a group's mark on one, that later ticks will see."""
        self.as_of(view)
        if self._unseen is None:
            self._unseen = self._holds_unseen(view)
        return self._unseen

    def _holds_unseen(self, view: View) -> bool:
        newest_ms = max((heard.fact.time_ms for heard in self.heard.values()), default=None)
        if newest_ms is None:
            return False
        for one in self.interactions.values():
            prompt = one.prompt
            if prompt is not None and prompt.group_id is not None and prompt.offset >= view.prompts:
                return True
            for entry in one.entries.values():
                output = entry.output
                if output and output.offset >= view.outputs and output.time_ms <= newest_ms:
                    return True
        return False


def share(metric: Metric | None, entry: Entry, fact: FeedbackFact, view: View) -> float | None:
    """How much of what was said about a session is a turn's; None: it is not about that turn."""
    if metric is None or metric.session == "equal":
        return 1.0
    between = turns_after(entry, fact, view)
    if metric.session == "last":
        return None if between else 1.0
    return float(metric.discount**between)


def turns_after(entry: Entry, fact: FeedbackFact, view: View) -> int:
    """How many turns of the session came after an entry's and before a feedback about it all.

    A turn that was past the horizon by then counts no more: it may be forgotten already.
    """
    interaction = entry.interaction
    session = interaction.session
    cached = session.as_of(view)
    turns = cached.get(fact.offset)
    if turns is None:
        since_ms = fact.time_ms - session.spec.horizon_ms
        turns = cached[fact.offset] = sorted(
            (moment, other.id)
            for other in session.interactions.values()
            if other.turn_ms >= since_ms
            and other.turn_ms > view.gone_ms
            and (moment := _moment(other, view)) is not None
            and moment <= fact.time_ms
        )
    assert entry.output is not None
    moment = _moment(interaction, view)
    own = entry.output.time_ms if moment is None else moment
    return len(turns) - bisect_right(turns, (own, interaction.id))


def _moment(interaction: Interaction, view: View) -> int | None:
    prompt = interaction.prompt
    if prompt is not None and prompt.offset < view.prompts and prompt.group_id is not None:
        return None
    outputs = (e.output for e in interaction.entries.values() if e.output is not None)
    return min((o.time_ms for o in outputs if o.offset < view.outputs), default=None)


def signals(entry: Entry, spec: Spec, view: View, deadline_ms: int) -> dict[str, bool]:
    """The spec's implicit terms, each whether it was seen within its wait. At the first closing.

    ``retry``: a later prompt of the session asks the same. ``next_turn``: one that came after the
    answer asks something else. A prompt without consent, or whose last word is not the user's,
    is neither, nor is another member of the same group.
    """
    if not spec.implicit:
        return {}
    own, output = entry.interaction.prompt, entry.output
    assert own is not None and output is not None
    found = dict.fromkeys(spec.implicit, False)
    ends = {
        name: min(deadline_ms, output.time_ms + spec.wait_ms_of(name)) for name in spec.implicit
    }
    for other in _later(entry.interaction.session, own, spec, view, max(ends.values())):
        same = other.mark == own.mark
        name = "retry" if same else "next_turn"
        if name in found and other.time_ms <= ends[name]:
            found[name] |= same or other.time_ms >= output.time_ms
    return found


def _later(
    session: Session, own: PromptFact, spec: Spec, view: View, until_ms: int
) -> list[PromptFact]:
    since_ms = until_ms - spec.horizon_ms  # what began before may be forgotten already
    return [
        prompt
        for other in session.interactions.values()
        if (prompt := other.prompt) is not None
        and prompt.mark
        and own.offset < prompt.offset < view.prompts
        and prompt.time_ms <= until_ms
        and other.turn_ms >= since_ms
        and other.turn_ms > view.gone_ms
        and (own.group_id is None or prompt.group_id != own.group_id)
    ]


def mark(messages: str | None) -> bytes:
    """What the user asked in the last message, as 8 bytes: equal where it is the same but for case
    and space. Empty where the last message is not the user's."""
    if messages is None:
        return b""
    try:
        asked = json.loads(messages)
    except (ValueError, RecursionError):
        return b""
    if isinstance(asked, list):
        last = asked[-1] if asked else None
        asked = last.get("content") if isinstance(last, dict) and last.get("role") == "user" else ""
    if isinstance(asked, list):
        texts = [part.get("text") for part in asked if isinstance(part, dict)]
        asked = " ".join(text for text in texts if isinstance(text, str))
    if not isinstance(asked, str):
        return b""
    text = " ".join(asked.casefold().split()).encode(errors="replace")
    return hashlib.blake2b(text, digest_size=8).digest() if text else b""
