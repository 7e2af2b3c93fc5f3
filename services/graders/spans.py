"""The span of a grader's call: of its own trace, linked to the answers that it was about.

What the call gave is fed back with its traceparent, so that the join that counts it leads here. A
grade that was known already has no call. Called by :mod:`.functions` and :mod:`.judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import time

from services.graders.item import Item
from tailrace.traces import Traces, Value


class Call:
    """One under way."""

    def __init__(self) -> None:
        self.score: float | None = None
        """What it said, where that is one number."""
        self.error: str | None = None
        """A fixed word; None: it said something."""
        self.traceparent = ""
        """Once it is over; empty: there are no traces."""


@contextmanager
def call(
    traces: Traces | None, name: str, metric: str, items: Sequence[Item], judge: str | None = None
) -> Iterator[Call]:
    """Around a call of the grader ``name`` about ``items``. ``traces``: None for none; ``judge``:
    the model that is asked."""
    made = Call()
    if traces is None:
        yield made
        return
    began_ms = time.time_ns() / 1e6
    try:
        yield made
    except BaseException as failed:
        made.error = made.error or type(failed).__name__
        raise
    finally:
        attributes: dict[str, Value] = {
            "gen_ai.evaluation.name": metric,
            "tailrace.grader": name,
            "tailrace.answers": len(items),
        }
        if len(items) == 1:
            attributes["gen_ai.response.id"] = items[0].interaction_id
            attributes["tailrace.choice"] = items[0].choice
        if made.score is not None:
            attributes["gen_ai.evaluation.score.value"] = made.score
        if judge is not None:
            attributes |= {"gen_ai.operation.name": "chat", "gen_ai.request.model": judge}
        made.traceparent = traces.record(
            f"grade {name}",
            began_ms,
            time.time_ns() / 1e6,
            links=[item.traceparent for item in items],
            attributes=attributes,
            error=made.error,
        )
