"""How the reward of an answer came to be, read from the log.

In: the id of an interaction. Out: what was asked and answered, every feedback about it with its
outcome, and each revision term by term, with what the trainer made of it. Called by ``tailrace
reward explain``; :mod:`tailrace.why` goes on from it to the weights.
"""

from __future__ import annotations

from datetime import UTC, datetime
import json
import math

import msgspec

from tailrace import turn
from tailrace.events import Component, Feedback, Output, Prompt, Receipt, Trajectory
from tailrace.log.base import Log
from tailrace.stream import Decoder
from tailrace.turn import Records
from tailrace.wire import Wire

_SHOWN = 300
"""Characters of a text that are shown to people."""


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """One receipt: of rewards for a feedback, of the trainer for a trajectory."""

    outcome: str
    reason: str | None
    trajectories: list[str]
    version: int | None


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One feedback record and where it lies; no fate: still in flight."""

    partition: int
    offset: int
    time_ms: int
    """Append time."""
    record: Feedback
    fate: Fate | None


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One trajectory of an answer; no fate: the trainer has not decided."""

    trajectory_id: str
    choice: int
    revision: int
    supersedes: str | None
    time_ms: int
    """Log time at which the wait for feedback ended."""
    reward: float | None
    combined: str
    """What the reward is to its terms: mean, sum, clipped, default or nothing. Inferred from the
    numbers: the rule is in the reward spec, of which the log has the hash alone. Where mean and sum
    are one it says mean."""
    components: list[Component]
    reward_spec: str | None
    feedback_ids: list[str]
    preferred_over: list[str]
    fate: Fate | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All that the log has of one interaction."""

    interaction_id: str
    prompt: Prompt | None
    outputs: list[Output]
    """By choice."""
    feedback: list[Heard]
    """In the order of the log."""
    revisions: list[Revision]
    """By choice, oldest first."""


def gather(
    log: Log, interaction: str, *, prefix: str = "", registry: str | None = None
) -> Explanation:
    """Read everything about an interaction.

    Raises ValueError for what is no interaction id or is not on the log, LogError.
    """
    decoder = Decoder(log, Wire(registry), prefix=prefix)
    return explanation(turn.read(log, decoder, interaction, prefix=prefix))


def explanation(found: Records) -> Explanation:
    """What the records of an interaction say of its reward."""
    fates: dict[str | tuple[int, int], Fate] = {}
    for _, event in found.receipts:
        source = (event.source.partition, event.source.offset)
        fates[event.subject_id if event.stage == "trainer" else source] = fate(event)
    return Explanation(
        interaction_id=found.interaction,
        prompt=None if found.prompt is None else found.prompt[1],
        outputs=[event for _, event in found.outputs.values()],
        feedback=[
            Heard(
                partition=record.partition,
                offset=record.offset,
                time_ms=record.time_ms,
                record=event,
                fate=fates.get((record.partition, record.offset)),
            )
            for record, event in found.feedback
        ],
        revisions=[
            _revision(event, fates.get(name)) for name, (_, event) in found.trajectories.items()
        ],
    )


def fate(event: Receipt) -> Fate:
    """What a receipt says."""
    return Fate(
        outcome=event.outcome,
        reason=event.reason,
        trajectories=event.trajectories,
        version=event.version,
    )


def _revision(event: Trajectory, fate: Fate | None) -> Revision:
    return Revision(
        trajectory_id=event.trajectory_id,
        choice=event.choice,
        revision=event.revision,
        supersedes=event.supersedes,
        time_ms=event.closed_log_time_ms or event.event_time_ms,
        reward=event.reward,
        combined=_combined(event),
        components=event.components,
        reward_spec=event.reward_spec,
        feedback_ids=event.feedback_ids,
        preferred_over=event.preferred_over,
        fate=fate,
    )


def _combined(event: Trajectory) -> str:
    """What the numbers tell. The trajectory says what came of the terms, not by which rule."""
    terms = [(c.value, c.weight or 0.0) for c in event.components if c.value is not None]
    if event.reward is None:
        return "nothing"
    weighted = math.fsum(value * weight for value, weight in terms)
    whole = math.fsum(weight for _, weight in terms)
    if whole and math.isclose(event.reward, weighted / whole, abs_tol=1e-9):
        return "mean"
    if terms and math.isclose(event.reward, weighted, abs_tol=1e-9):
        return "sum"
    return "clipped" if event.feedback_ids else "default"


def in_words(found: Explanation) -> list[str]:
    """The explanation for people, some lines."""
    lines = [found.interaction_id]
    if found.prompt is not None:
        content = found.prompt.content
        learn = "may be trained on" if found.prompt.learn else "may not be trained on"
        lines += [f"  model {found.prompt.model}, {learn}"]
        lines += [f"  asked: {text_of(content.messages if content else None)}"]
    for output in found.outputs:
        versions = sorted({str(span.version) for span in output.weight_versions})
        end = output.error or output.untrainable or output.finish_reason
        lines += [f"answer {output.choice} ({end}, version {', '.join(versions) or 'unknown'})"]
        lines += [f"  {text_of(output.content.message if output.content else None)}"]
    lines += ["feedback" if found.feedback else "no feedback"]
    lines += [f"  {heard_in_words(heard)}" for heard in found.feedback]
    for one in found.revisions:
        lines += revision_in_words(one)
    lines += [] if found.revisions else ["no trajectory yet"]
    return [plain(line) for line in lines]


def plain(line: str) -> str:
    """A line that does a terminal no harm. Anybody may have written what is in it: no line breaks,
    no escapes, no half surrogates."""
    return "".join(c if c.isprintable() else " " for c in line)


def heard_in_words(heard: Heard) -> str:
    """One feedback and its fate."""
    fate = "in flight" if heard.fate is None else named(heard.fate)
    return f"{clock(heard.time_ms)} {_said(heard.record)}: {fate}"


def revision_in_words(one: Revision) -> list[str]:
    """One reward, term by term, and what the trainer made of it."""
    rule = {
        "default": ", it seems by default",
        "nothing": "",
        "clipped": ", it seems clipped, of",
    }
    how = rule.get(one.combined, f", which is the {one.combined} of")
    which = f"revision {one.revision} of answer {one.choice}, closed {clock(one.time_ms)}"
    lines = [f"{which}: reward {number(one.reward)}{how}"]
    width = max([len(c.name) for c in one.components], default=0)
    for term in one.components:
        value = f"{number(term.value)} × {number(term.weight)}"
        note = f" ({term.reason})" if term.reason else ""
        lines += [f"  {term.name:<{width}} {value if term.value is not None else 'none'}{note}"]
    lines += [f"  better than {loser}" for loser in one.preferred_over]
    trainer = "not decided yet" if one.fate is None else named(one.fate)
    if one.fate is not None and one.fate.version is not None:
        trainer += f", version {one.fate.version}"
    return [*lines, f"  spec {one.reward_spec}, trajectory {one.trajectory_id}: {trainer}"]


def _said(record: Feedback) -> str:
    about = "the session" if record.interaction_id is None else f"answer {record.choice}"
    who = record.grader or record.user or record.source
    if record.action == "retract":
        return f"{record.replaces} is taken back by {who}"
    given = (record.boolean, record.number, record.category, record.preferred_over)
    value = next((str(one) for one in given if one is not None), "")
    if record.content is not None:
        value = text_of(record.content.text)
    kind = "over " if record.kind == "preference" else ""
    return f"{record.metric} {kind}{value} for {about} by {who}"


def named(fate: Fate) -> str:
    """Outcome and reason."""
    return fate.outcome + (f" ({fate.reason})" if fate.reason else "")


def number(value: float | None) -> str:
    """A figure for people."""
    return "none" if value is None else f"{value:.4g}"


def clock(time_ms: int) -> str:
    """A moment for people, UTC."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"at {time_ms} ms"  # some writer's own time, beyond all calendars


def text_of(text: str | None) -> str:
    """What was said last, of a plain text, an OpenAI message, or a list of them."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        found = text
    if isinstance(found, list) and found:
        found = found[-1]
    if isinstance(found, dict):
        found = found.get("content") or found
    shown = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
