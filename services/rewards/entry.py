"""One answer's life: what is known of it, when it closes, what counts, and what became of each
feedback.

An :class:`Entry` is one choice of one interaction. Every question is asked *as of a tick*: only
records below the tick's ends and closings by earlier ticks are looked at. After an assignment the
state may be ahead of the records that are read again, and the answers must be those given the
first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from services.rewards import naming, session
from services.rewards.account import Heard
from services.rewards.facts import Closing, FeedbackFact, OutputFact, PromptFact
from services.rewards.session import Session
from services.rewards.spec import Spec


class View(msgspec.Struct, frozen=True):
    """A tick as the entries see it."""

    offset: int
    time_ms: int
    prompts: int
    outputs: int
    feedback: int
    gone_ms: int = -1
    """Interactions that began up to then were evicted by earlier ticks."""
    evicted_ms: int = -1
    """Those that began up to then are evicted by this one."""

    def gone(self, interaction_id: str) -> bool:
        """Whether an earlier tick evicted an interaction."""
        return naming.turn_time_ms(interaction_id) <= self.gone_ms

    def evicts(self, interaction_id: str) -> bool:
        """Whether this tick does."""
        return self.gone_ms < naming.turn_time_ms(interaction_id) <= self.evicted_ms


class Interaction:
    """A prompt and its choices; session feedback is shared through ``session``."""

    __slots__ = ("entries", "id", "orphaned_by", "prompt", "session", "turn_ms")

    def __init__(self, interaction_id: str, session: Session) -> None:
        self.id = interaction_id
        self.turn_ms = naming.turn_time_ms(interaction_id)
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


class Credit(NamedTuple):
    """Where a feedback first counted for an entry."""

    tick: int
    outcome: str
    trajectory: str
    share: float


class Entry:
    """One choice of one interaction."""

    __slots__ = ("choice", "closings", "credit", "heard", "interaction", "orphaned_by", "output")

    def __init__(self, interaction: Interaction, choice: int) -> None:
        self.interaction = interaction
        self.choice = choice
        self.output: OutputFact | None = None
        self.heard: dict[int, Heard] = {}
        """By offset."""
        self.closings: list[tuple[int, Closing]] = []
        """(tick offset, closing), oldest first: the first one and its revisions."""
        self.credit: dict[int, Credit] = {}
        """By feedback offset."""
        self.orphaned_by: int | None = None

    def closed(self, tick: int, closing: Closing) -> None:
        """Take note of a closing."""
        outcome = "corrected" if self.closings else "joined"
        self.closings.append((tick, closing))
        for at, offset in enumerate(closing.inputs):
            share = closing.shares[at] if closing.shares else 1.0
            self.credit.setdefault(offset, Credit(tick, outcome, closing.trajectory_id, share))

    def spoken(self, view: View) -> Iterator[Heard]:
        """All that was said about this choice, and about the session after its output."""
        yield from self.heard.values()
        for heard in self.interaction.session.heard.values():
            if self.share(heard, view) is not None:
                yield heard

    def share(self, heard: Heard, view: View) -> float | None:
        """How much of a feedback is this choice's; None: it is not about this choice.

        What was said about the session is, where the output was appended before it, within the
        horizon, and outside of groups. Its shares are known to ticks that are not before it: to
        those, every output that precedes it is visible. A share once counted stays.
        """
        fact = heard.fact
        if fact.interaction_id is not None:
            return 1.0
        known = self.credit.get(fact.offset)
        if known is not None and known.tick <= view.offset:
            return known.share
        interaction, prompt = self.interaction, self.interaction.prompt
        grouped = prompt is not None and interaction.seen(view) and prompt.group_id is not None
        if grouped or fact.time_ms > view.time_ms or not self._precedes(fact):
            return None
        metric = interaction.session.spec.metrics.get(fact.metric or "")
        return session.share(metric, self, fact, view)

    def whole(self, view: View) -> bool:
        """Whether prompt and output both lie below the tick's ends."""
        output = self.output
        return output is not None and output.offset < view.outputs and self.interaction.seen(view)

    def hidden(self, view: View) -> bool:
        """Whether more is known of it than this tick may use."""
        output, prompt, session = self.output, self.interaction.prompt, self.interaction.session
        if output is not None and output.offset >= view.outputs:
            return True
        if prompt is not None and prompt.offset >= view.prompts:
            return True
        if self.closings and self.closings[-1][0] >= view.offset:
            return True  # what came after the deadline, but below the ends, is the next tick's
        shared = [heard for heard in session.heard.values() if self._precedes(heard.fact)]
        if shared and session.unseen(view):
            return True
        if any(heard.fact.time_ms > view.time_ms for heard in shared):
            return True
        return any(
            fact.offset >= view.feedback
            for heard in (*self.heard.values(), *shared)
            for fact in (heard.fact, *heard.later())
        )

    def given_up(self, view: View) -> bool:
        """Whether an earlier tick (or this one) closed it without a trajectory."""
        by = [b for b in (self.orphaned_by, self.interaction.orphaned_by) if b is not None]
        return bool(by) and min(by) <= view.offset

    def deadline_ms(self, spec: Spec, view: View) -> int:
        """When the wait for feedback ends: after the longest window, or at the first final signal
        within its own."""
        assert self.output is not None
        output_ms = self.output.time_ms
        deadline = output_ms + spec.longest_wait_ms
        for heard in self.spoken(view):
            fact = heard.fact
            if fact.final and fact.offset < view.feedback:
                if fact.time_ms <= output_ms + spec.wait_ms_of(fact.metric):
                    deadline = min(deadline, max(fact.time_ms, output_ms))
        return deadline

    def windows(self, spec: Spec, deadline_ms: int) -> dict[str, int]:
        """When the wait for each metric ended; "" is any other. Empty: all at the deadline."""
        assert self.output is not None
        ends = {
            name: min(deadline_ms, self.output.time_ms + spec.wait_ms_of(name))
            for name in (*spec.metrics, "")
        }
        return ends if min(ends.values()) < deadline_ms else {}

    def cut_short(self, spec: Spec, view: View, deadline_ms: int) -> set[str]:
        """Metrics and implicit terms whose wait a tick does not reach: those of an evicted answer.

        Of a first closing; there is no revision after one that was cut short. A final signal that
        was read ends the wait for all that came before it on its topic.
        """
        assert self.output is not None
        output_ms = self.output.time_ms
        final = deadline_ms < output_ms + spec.longest_wait_ms
        return {
            name
            for name in (*(() if final else spec.metrics), *spec.implicit)
            if min(deadline_ms, output_ms + spec.wait_ms_of(name)) > view.time_ms
        }

    def inputs(self, spec: Spec, view: View, deadline_ms: int) -> tuple[list[Heard], set[str]]:
        """The feedback that counts, in log order, for the first closing or for a revision; and the
        metrics of which some came too late to count."""
        found: list[Heard] = []
        lost: set[str] = set()
        for heard in self.spoken(view):
            fact = heard.fact
            if fact.offset >= view.feedback or self._gone(heard, spec, view, deadline_ms):
                continue
            if not self._in_time(fact, spec, deadline_ms) and (
                not self.closings or spec.late == "drop"
            ):
                lost.add(fact.metric or "")
                continue
            settled_before = heard.settled_by is not None and heard.settled_by < view.offset
            if settled_before and fact.offset not in self.credit:
                continue  # its outcome is out: it must not count after all
            found.append(heard)
        return sorted(found, key=lambda heard: heard.fact.offset), lost

    def fate(self, heard: Heard, spec: Spec, view: View) -> tuple[str, str | None] | None:
        """What became of a feedback here (outcome, trajectory id); None: not decided yet."""
        credit = self.credit.get(heard.fact.offset)
        if credit is not None and credit.tick <= view.offset:
            return credit.outcome, credit.trajectory
        if self.closings and self.closings[0][0] <= view.offset:
            prompt, first = self.interaction.prompt, self.closings[0][1]
            assert prompt is not None
            if not prompt.learn:
                return "unconsented", None
            if self._gone(heard, spec, view, first.deadline_ms):
                return ("withdrawn" if self._withdrawn(heard, view) else "replaced"), None
            late = not self._in_time(heard.fact, spec, first.deadline_ms)
            return ("late", None) if late and spec.late == "drop" else None
        if self.given_up(view):
            return "orphan", None
        waited = heard.fact.time_ms + spec.orphan_ms <= view.time_ms
        return ("orphan", None) if waited and not self.whole(view) else None

    def _recent(self, fact: FeedbackFact) -> bool:
        """Whether a feedback lies within the horizon. What comes later changes nothing here: the
        entry may be forgotten by then. Only of what is about the session is that in question."""
        interaction = self.interaction
        return fact.time_ms - interaction.turn_ms <= interaction.session.spec.horizon_ms

    def _precedes(self, fact: FeedbackFact) -> bool:
        """Whether a feedback about the session comes after the output, within the horizon."""
        output = self.output
        return self._recent(fact) and output is not None and output.time_ms <= fact.time_ms

    def _in_time(self, fact: FeedbackFact, spec: Spec, deadline_ms: int) -> bool:
        """Whether a feedback belongs to the first closing, as that one judged."""
        if not self.closings:
            assert self.output is not None
            until_ms = min(deadline_ms, self.output.time_ms + spec.wait_ms_of(fact.metric))
            return fact.time_ms <= until_ms
        first = self.closings[0][1]
        other_ms = first.windows.get("", deadline_ms)
        until_ms = first.windows.get(fact.metric or "", other_ms)
        return fact.time_ms <= until_ms and fact.offset < first.feedback_end

    def _gone(self, heard: Heard, spec: Spec, view: View, deadline_ms: int) -> bool:
        if self._withdrawn(heard, view, None if self.closings else deadline_ms):
            return True
        corrects = bool(self.closings) and spec.late == "correct"
        return any(
            other.fact.offset < view.feedback
            and self._recent(other.fact)
            and (corrects or self._in_time(other.fact, spec, deadline_ms))
            for other in heard.replaced
        )

    def _withdrawn(self, heard: Heard, view: View, by_ms: int | None = None) -> bool:
        return any(
            fact.offset < view.feedback
            and self._recent(fact)
            and (by_ms is None or fact.time_ms <= by_ms)
            for fact in heard.withdrawn
        )
