"""The span with which the trace of a rollout begins: what the gateway's is to a user's request.

Ids, counts and versions; no text, no tokens. Called by :mod:`.rollouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.rollouts.answer import Answer
from services.rollouts.engine import Broke
from tailrace import ids
from tailrace.tasks.benchmark import Task
from tailrace.traces import Traces, Value


class Request:
    """One under way."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent
        """What it hands on; empty: there are no traces."""
        self.answer: Answer | None = None
        """What came of it."""


@contextmanager
def request(traces: Traces | None, model: str, task: Task, interaction: str) -> Iterator[Request]:
    """Around one request to an engine, in a trace of its own. ``traces``: None for none."""
    if traces is None:
        yield Request()
        return
    operation = "chat" if task.messages else "text_completion"
    begun: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model,
        "gen_ai.response.id": interaction,
        "gen_ai.conversation.id": ids.session_of(interaction),
    }
    span = traces.begin(f"{operation} {model}", None, begun, client=True)
    made, error = Request(span.traceparent), None
    try:
        yield made
    except Broke as failed:
        error = failed.reason
        raise
    except BaseException as failed:  # broken off: live requests waited, or the process ends
        error = type(failed).__name__
        raise
    finally:
        span.end({} if made.answer is None else _said(made.answer), error=error)


def _said(answer: Answer) -> dict[str, Value]:
    versions = dict.fromkeys(span.version for span in answer.spans if span.version is not None)
    return {
        "gen_ai.usage.input_tokens": len(answer.prompt_token_ids),
        "gen_ai.usage.output_tokens": len(answer.token_ids),
        "gen_ai.response.finish_reasons": [answer.finish_reason or ""],
        "tailrace.weight_versions": list(versions),
        "tailrace.outcome": answer.fault() or "done",
    }
