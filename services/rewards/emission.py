"""What the join sends: trajectories, receipts, dead letters, and where they go. Pure.

Made from kept facts only, so what is sent again after a crash is the same to the byte.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from services.rewards import naming
from services.rewards.facts import Closing, FeedbackFact, Kept, Settled, encode
from services.rewards.score import CUT_SHORT
from tailrace import events, ids
from tailrace.log.base import LogRecord
from tailrace.topics import FEEDBACK, MAX_RECORD_BYTES

ROOM_BYTES = 64 * 1024
"""Left beside a trajectory for its key and headers."""
MAX_FEEDBACK_IDS = 1000
"""Named by a trajectory that would not fit otherwise."""
_WITHOUT: dict[str, Any] = {
    **{"content": None, "tags": {}, "feedback_ids": [], "preferred_over": []},
    **{"weight_versions": [], "sampling": {}},
    **dict.fromkeys(("user", "principal", "route", "group_id", "task", "logprobs_mode", "model")),
    **dict.fromkeys(("engine", "finish_reason", "error")),
}
"""What a trajectory that would not fit goes without, in this order: all that its maker chose."""
DROPPED_TAG = "tailrace-dropped"


class Send(msgspec.Struct, frozen=True):
    """A record for ``trajectories`` or ``receipts``."""

    record: events.Trajectory | events.Receipt
    key: bytes | None
    partition: int
    traceparent: str = ""
    """Of the request that a trajectory is about."""
    links: tuple[str, ...] = ()
    """Those of the feedback that counted for it; some may be empty."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that cannot be used, and why."""

    record: LogRecord
    reason: str
    detail: str


Out = Send | DeadLetter


def receipt(
    record: LogRecord, feedback_id: str, outcome: str, reason: str | None, partitions: int
) -> Send:
    """The receipt of a feedback record whose outcome is known when it is read.

    It lies in its session's partition; where no session can be read from it, where the record lies.
    """
    try:
        session = naming.session_of(feedback_id)
        key, partition = session.encode(), naming.place_of(session, partitions)
    except ValueError:
        feedback_id, partition = "", record.partition
        key = record.key or b""
    made = events.Receipt(
        source=events.Coordinates(
            topic=FEEDBACK.name, partition=record.partition, offset=record.offset
        ),
        subject_id=feedback_id,
        event_time_ms=record.time_ms,
        stage="rewards",
        outcome=outcome,
        reason=reason,
    )
    return Send(made, key, partition)


def settled(partition: int, fact: FeedbackFact, outcome: Settled, time_ms: int) -> Send:
    """The receipt of a feedback record that a tick settled."""
    made = events.Receipt(
        source=events.Coordinates(topic=FEEDBACK.name, partition=partition, offset=fact.offset),
        subject_id=fact.feedback_id,
        event_time_ms=time_ms,
        stage="rewards",
        outcome=outcome.outcome,
        reason=outcome.reason,
        trajectories=outcome.trajectories,
    )
    return Send(made, naming.session_of(fact.feedback_id).encode(), partition)


def trajectory(
    partition: int,
    closing: Closing,
    prompt: Kept[events.Prompt],
    output: Kept[events.Output],
    said: list[FeedbackFact],
    time_ms: int,
    demonstration: str | None = None,
) -> Send:
    """The trajectory of a closing, from the kept records and the feedback that counts.

    Without consent there is no content; nor where it would not fit a record, see :func:`_fitted`.
    """
    asked, answered = prompt.record, output.record
    content = None if asked.learn is not True else _content(asked, answered, demonstration)
    times = [fact.time_ms for fact in said]
    made = events.Trajectory(
        trajectory_id=closing.trajectory_id,
        interaction_id=closing.interaction_id,
        choice=closing.choice,
        event_time_ms=time_ms,
        revision=closing.revision,
        supersedes=closing.supersedes,
        reward=closing.reward,
        components=closing.components,
        reward_spec=closing.spec,
        feedback_ids=[fact.feedback_id for fact in said],
        preferred_over=_below(closing, said),
        tenant=naming.tenant_of(closing.interaction_id),
        principal=asked.principal,
        user=asked.user,
        learn=asked.learn,
        route=asked.route,
        group_id=asked.group_id,
        group_size=asked.group_size,
        task=asked.task,
        tags=asked.tags,
        sampling=asked.sampling,
        logprobs_mode=asked.logprobs_mode,
        model=asked.model,
        engine=answered.engine,
        finish_reason=answered.finish_reason,
        weight_versions=answered.weight_versions,
        error=answered.error,
        untrainable=answered.untrainable,
        prompt_log_time_ms=prompt.time_ms,
        output_log_time_ms=output.time_ms,
        first_feedback_log_time_ms=min(times, default=None),
        last_feedback_log_time_ms=max(times, default=None),
        closed_log_time_ms=time_ms if closing.revision else min(closing.deadline_ms, time_ms),
        content=content,
    )
    key = naming.session_of(closing.interaction_id).encode()
    links = tuple(fact.traceparent for fact in said)
    return Send(_fitted(made), key, partition, prompt.traceparent, links)


def kind_of(made: events.Trajectory) -> str:
    """first, correction, or cut_short: a first one whose answer was evicted while a term waited."""
    if made.revision:
        return "correction"
    cut = any((component.reason or "").endswith(CUT_SHORT) for component in made.components)
    return CUT_SHORT if cut else "first"


def _fitted(made: events.Trajectory) -> events.Trajectory:
    """The trajectory, or as much of it as fits a record: then it is untrainable, ``too_large``.

    Where it is not the content alone that had to go, the tag ``tailrace-dropped`` names what did,
    with the number of feedback ids that there were.
    """
    if _fits(made):
        return made
    said = len(made.feedback_ids)
    made = replace(made, untrainable="too_large")
    dropped: list[str] = []
    for name, nothing in _WITHOUT.items():
        if name == "feedback_ids":
            made = replace(made, feedback_ids=made.feedback_ids[:MAX_FEEDBACK_IDS])
        else:
            made = replace(made, **{name: nothing})
        if name != "content":
            dropped.append(f"{name}={said}" if name == "feedback_ids" else name)
            made = replace(made, tags={DROPPED_TAG: " ".join(dropped)})
        if _fits(made):
            break
    return made


def _fits(made: events.Trajectory) -> bool:
    # As msgpack, with the names of the fields, it is never smaller than as Avro.
    return len(encode(made)) <= MAX_RECORD_BYTES - ROOM_BYTES


def _below(closing: Closing, said: list[FeedbackFact]) -> list[str]:
    """The answers that lost against this one, each once."""
    lost = (
        ids.answer(*fact.preferred_over)
        for fact in said
        if fact.preferred_over is not None
        and not fact.rejects(closing.interaction_id, closing.choice)
    )
    return list(dict.fromkeys(lost))


def _content(
    asked: events.Prompt, answered: events.Output, demonstration: str | None
) -> events.TrajectoryContent | None:
    if asked.content is None and answered.content is None and demonstration is None:
        return None
    before = asked.content or events.PromptContent()
    after = answered.content or events.OutputContent()
    return events.TrajectoryContent(
        messages=before.messages,
        prompt_token_ids=before.prompt_token_ids,
        message=after.message,
        token_ids=after.token_ids,
        logprobs=after.logprobs,
        demonstration=demonstration,
    )
