"""A request's span: OpenTelemetry's names for what a generative model was asked and gave.

Ids, counts and versions; no text, no tokens. Called by :mod:`services.gateway.app` and
:mod:`services.gateway.run`.
"""

from __future__ import annotations

from services.gateway.chat import Interaction
from services.gateway.shapes import Kind
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
