"""A request's span: OpenTelemetry's names for what a generative model was asked and gave, and for
what was said of it.

Ids, counts, scores and versions; no text, no tokens. Called by :mod:`services.gateway.app`,
:mod:`services.gateway.run` and :mod:`services.gateway.inbox`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.gateway.chat import Interaction
from services.gateway.errors import ApiError
from services.gateway.shapes import Kind
from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback
from tailrace.traces import Span, Traces, Value

_OPERATIONS = {"chat": "chat", "text": "text_completion"}


def begin(traces: Traces, kind: Kind, model: str, parent: str | None) -> Span:
    """At the request's arrival; ``parent``: the traceparent that it came with."""
    return traces.begin(
        f"{_OPERATIONS[kind]} {model}", parent, {"gen_ai.operation.name": _OPERATIONS[kind]}
    )


def end(span: Span, interaction: Interaction, outcome: str, error: str | None) -> None:
    """At the answer's end, whatever ended it."""
    prompt = interaction.prompt
    attributes: dict[str, Value] = {
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": prompt.model or "",
        "gen_ai.response.id": interaction.interaction_id,
        "gen_ai.conversation.id": prompt.session_id,
        "gen_ai.usage.input_tokens": interaction.prompt_tokens,
        "gen_ai.usage.output_tokens": interaction.completion_tokens(),
        "gen_ai.response.finish_reasons": [
            choice.finish_reason for choice in interaction.choices if choice.finish_reason
        ],
        "tailrace.outcome": outcome,
        "tailrace.weight_versions": interaction.versions(),
    }
    span.end(attributes, error=error)


@contextmanager
def feedback(
    traces: Traces | None, records: Sequence[Feedback], parent: str | None
) -> Iterator[str | None]:
    """Around what a request of feedback waits for. The traceparent that its records are to have;
    ``parent``: the one that it came with, which they have where there are no traces."""
    if traces is None:
        yield parent
        return
    span, error = traces.begin("feedback", parent, _said(records)), None
    try:
        yield span.traceparent
    except ApiError as failed:
        error = failed.code or "refused"
        raise
    except InvalidRecord as failed:
        error = failed.reason
        raise
    except BaseException as failed:
        error = type(failed).__name__
        raise
    finally:
        span.end({}, error=error)


def _said(records: Sequence[Feedback]) -> dict[str, Value]:
    """What is the same of all of them."""
    attributes: dict[str, Value] = {"tailrace.feedback": len(records)}
    subjects = {record.interaction_id or record.session_id for record in records}
    subject = subjects.pop() if len(subjects) == 1 else None
    if subject is not None:
        attributes["gen_ai.conversation.id"] = ids.session_of(subject)
        if ids.is_interaction(subject):
            attributes["gen_ai.response.id"] = subject
    if len(records) == 1:
        (record,) = records
        attributes["tailrace.feedback_id"] = record.feedback_id
        attributes["tailrace.action"] = record.action
        if record.metric is not None:
            attributes["gen_ai.evaluation.name"] = record.metric
        score = record.number if record.boolean is None else float(record.boolean)
        if score is not None:
            attributes["gen_ai.evaluation.score.value"] = score
    return attributes
