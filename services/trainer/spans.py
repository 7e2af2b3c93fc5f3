"""A step's span, linked to the requests whose answers it was made of. Called by
:mod:`services.trainer.report`."""

from __future__ import annotations

from collections.abc import Sequence

from services.trainer.answer import Answer
from tailrace.events import Step
from tailrace.traces import Traces, Value

_FIGURES = ("loss", "ess", "mismatch_kl", "entropy", "reward", "effective")


def stepped(traces: Traces, step: Step, answers: Sequence[Answer], *, now_ms: int) -> None:
    """It ended now; how long it took its figures say."""
    attributes: dict[str, Value] = {
        "gen_ai.request.model": step.model,
        "tailrace.step": step.step,
        "tailrace.version": step.version,
        "tailrace.answers": len(answers),
    }
    attributes |= {
        f"tailrace.{name}": step.figures[name] for name in _FIGURES if name in step.figures
    }
    took_ms = step.figures.get("step_s", 0.0) * 1000
    links = [answer.traceparent for answer in answers]
    traces.record("step", now_ms - took_ms, now_ms, links=links, attributes=attributes)
