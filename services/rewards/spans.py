"""A join's span: from the answer's append to the closing of its wait, in the log's time.

Linked to the request that the trajectory is about and to those of the feedback that counted. One
that is sent again after a crash has another span. Called by :mod:`services.rewards.app`.
"""

from __future__ import annotations

from services.rewards import emission
from services.rewards.emission import Send
from tailrace import events
from tailrace.traces import Traces, Value


def joined(traces: Traces, sent: Send) -> None:
    """A trajectory was sent."""
    made = sent.record
    assert isinstance(made, events.Trajectory)
    ended_ms = made.closed_log_time_ms or made.event_time_ms
    attributes: dict[str, Value] = {
        "tailrace.interaction_id": made.interaction_id,
        "tailrace.choice": made.choice,
        "tailrace.trajectory_id": made.trajectory_id,
        "tailrace.revision": made.revision,
        "tailrace.trajectory_kind": emission.kind_of(made),
        "tailrace.feedback": len(sent.links),
    }
    if made.reward is not None:
        attributes["tailrace.reward"] = made.reward
    traces.record(
        "join",
        made.output_log_time_ms or ended_ms,
        ended_ms,
        links=(sent.traceparent, *sent.links),
        attributes=attributes,
    )
