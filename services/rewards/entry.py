"""One answer's life: what is known of it, when it closes, what counts, and what became of each
feedback.

An :class:`Entry` is one choice of one interaction. Every question is asked *as of a tick*: only
records below the tick's ends and closings by earlier ticks are looked at. After an assignment the
state may be ahead of the records that are read again, and the answers must be those given the
first time.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.rewards.facts import Closing, FeedbackFact, OutputFact, PromptFact
from services.rewards.spec import Spec
from tailrace import ids


class View(msgspec.Struct, frozen=True):
    """A tick as the entries see it."""

    offset: int
    time_ms: int
    prompts: int
    outputs: int
    feedback: int


class Heard:
    """A feedback record in memory, with what later records did to it and what it came to."""

    __slots__ = ("fact", "replaced", "settled_by", "withdrawn")

    def __init__(self, fact: FeedbackFact) -> None:
        self.fact = fact
        self.replaced: list[Heard] = []
        self.withdrawn: list[FeedbackFact] = []
        self.settled_by: int | None = None
        """Offset of the tick that decided its outcome."""


class Interaction:
    """A prompt and its choices; session feedback is shared through ``session``."""

    __slots__ = ("entries", "id", "orphaned_by", "prompt", "session", "turn_ms")

    def __init__(self, interaction_id: str, session: Session) -> None:
        self.id = interaction_id
        self.turn_ms = ids.turn_time_ms(interaction_id)
        self.session = session
        self.prompt: PromptFact | None = None
        self.entries: dict[int, Entry] = {}
        self.orphaned_by: int | None = None
        """The tick that gave up on any output."""

    def entry(self, choice: int) -> Entry:
        """The entry of a choice, made when it is first spoken of."""
        if choice not in self.entries:
            self.entries[choice] = Entry(self, choice)
        return self.entries[choice]

    def seen(self, view: View) -> bool:
        """Whether the prompt lies below the tick's end."""
        return self.prompt is not None and self.prompt.offset < view.prompts


class Session:
    """The interactions of a session and what was said about it as a whole."""

    __slots__ = ("heard", "horizon_ms", "id", "interactions")

    def __init__(self, session_id: str, horizon_ms: int) -> None:
        self.id = session_id
        self.horizon_ms = horizon_ms
        self.interactions: dict[str, Interaction] = {}
        self.heard: list[Heard] = []


class Entry:
    """One choice of one interaction."""

    __slots__ = ("choice", "closings", "credit", "heard", "interaction", "orphaned_by", "output")

    def __init__(self, interaction: Interaction, choice: int) -> None:
        self.interaction = interaction
        self.choice = choice
        self.output: OutputFact | None = None
        self.heard: list[Heard] = []
        self.closings: list[tuple[int, Closing]] = []
        """(tick offset, closing), oldest first: the first one and its revisions."""
        self.credit: dict[int, tuple[int, str, str]] = {}
        """By feedback offset: (tick, joined or corrected, trajectory id) where it first counted."""
        self.orphaned_by: int | None = None

    def closed(self, tick: int, closing: Closing) -> None:
        """Take note of a closing."""
        outcome = "corrected" if self.closings else "joined"
        self.closings.append((tick, closing))
        for offset in closing.inputs:
            self.credit.setdefault(offset, (tick, outcome, closing.trajectory_id))

    def spoken(self, view: View) -> Iterator[Heard]:
        """All that was said about this choice, and about the session after its output."""
        yield from self.heard
        for heard in self.interaction.session.heard:
            if self.credits(heard, view):
                yield heard

    def credits(self, heard: Heard, view: View) -> bool:
        """Whether what was said about the session is about this choice too.

        It is where the output was appended before it, within the horizon, and outside of groups.
        """
        output, prompt, interaction = self.output, self.interaction.prompt, self.interaction
        grouped = prompt is not None and interaction.seen(view) and prompt.group_id is not None
        if output is None or grouped:
            return False
        time_ms = heard.fact.time_ms
        recent = time_ms - interaction.turn_ms <= interaction.session.horizon_ms
        return output.time_ms <= time_ms and recent

    def whole(self, view: View) -> bool:
        """Whether prompt and output both lie below the tick's ends."""
        output = self.output
        return output is not None and output.offset < view.outputs and self.interaction.seen(view)

    def given_up(self, view: View) -> bool:
        """Whether an earlier tick (or this one) closed it without a trajectory."""
        by = [b for b in (self.orphaned_by, self.interaction.orphaned_by) if b is not None]
        return bool(by) and min(by) <= view.offset

    def deadline_ms(self, spec: Spec, view: View) -> int:
        """When the wait for feedback ends: after the window, or at the first final signal."""
        assert self.output is not None
        deadline = self.output.time_ms + spec.wait_ms
        for heard in self.spoken(view):
            if heard.fact.final and heard.fact.offset < view.feedback:
                deadline = min(deadline, max(heard.fact.time_ms, self.output.time_ms))
        return deadline

    def inputs(self, spec: Spec, view: View, deadline_ms: int) -> list[Heard]:
        """The feedback that counts, in log order: for the first closing, or for a revision."""
        first = self.closings[0][1] if self.closings else None
        found = []
        for heard in self.spoken(view):
            offset = heard.fact.offset
            if offset >= view.feedback or self._gone(heard, spec, view, deadline_ms):
                continue
            in_time = heard.fact.time_ms <= deadline_ms and (
                first is None or offset < first.feedback_end
            )
            if not in_time and (first is None or spec.late == "drop"):
                continue
            settled_before = heard.settled_by is not None and heard.settled_by < view.offset
            if settled_before and offset not in self.credit:
                continue  # its outcome is out: it must not count after all
            found.append(heard)
        return sorted(found, key=lambda heard: heard.fact.offset)

    def fate(self, heard: Heard, spec: Spec, view: View) -> tuple[str, str | None] | None:
        """What became of a feedback here (outcome, trajectory id); None: not decided yet."""
        credit = self.credit.get(heard.fact.offset)
        if credit is not None and credit[0] <= view.offset:
            return credit[1], credit[2]
        if self.closings and self.closings[0][0] <= view.offset:
            prompt, first = self.interaction.prompt, self.closings[0][1]
            assert prompt is not None
            if not prompt.learn:
                return "unconsented", None
            if self._gone(heard, spec, view, first.deadline_ms):
                return ("withdrawn" if self._withdrawn(heard, view) else "replaced"), None
            late = heard.fact.time_ms > first.deadline_ms or heard.fact.offset >= first.feedback_end
            return ("late", None) if late and spec.late == "drop" else None
        if self.given_up(view):
            return "orphan", None
        waited = heard.fact.time_ms + spec.orphan_ms <= view.time_ms
        return ("orphan", None) if waited and not self.whole(view) else None

    def _gone(self, heard: Heard, spec: Spec, view: View, deadline_ms: int) -> bool:
        if self._withdrawn(heard, view, None if self.closings else deadline_ms):
            return True
        for other in heard.replaced:
            fact = other.fact
            in_time = fact.time_ms <= deadline_ms and (
                not self.closings or fact.offset < self.closings[0][1].feedback_end
            )
            if fact.offset < view.feedback and (
                in_time or (self.closings and spec.late == "correct")
            ):
                return True
        return False

    def _withdrawn(self, heard: Heard, view: View, by_ms: int | None = None) -> bool:
        return any(
            fact.offset < view.feedback and (by_ms is None or fact.time_ms <= by_ms)
            for fact in heard.withdrawn
        )
