"""From a feedback record to the first token that was served because of it. Pure.

feedback (append time) -> rewards receipt (its trajectories) -> trainer receipt (the version) -> the
first token of any answer under that version or a later one. Fed with records in any order; called
by the demo's picture.

The time of a token is estimated from what the gateway measured: the prompt's event time, plus the
time to the first token, plus an even share of the rest. Clocks of gateway and broker must agree.
"""

from __future__ import annotations

import math

from tailrace.events import Coordinates, Output, Prompt, Receipt

_JOINED = ("joined", "corrected")


def token_time_ms(asked_ms: float, output: Output, token: int) -> float | None:
    """When a token (counted from 0) of an answer was served; None where nothing was measured.

    asked + ttft + (total - ttft) * token / (tokens - 1): the first token comes at ttft, the last at
    total. Without a ttft (answers that are not streamed) tokens are spread over the whole.
    """
    if output.total_ms is None or not output.weight_versions:
        return None
    tokens = output.weight_versions[-1].end
    if output.ttft_ms is None:
        return asked_ms + output.total_ms * (token + 1) / max(tokens, 1)
    return (
        asked_ms + output.ttft_ms + (output.total_ms - output.ttft_ms) * token / max(tokens - 1, 1)
    )


class FeedbackToServed:
    """Collects what is known; :meth:`samples_s` joins it."""

    def __init__(self) -> None:
        self._feedback: dict[tuple[int, int], int] = {}
        self._joined: dict[tuple[int, int], list[str]] = {}
        self._trained: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._early: dict[str, list[Output]] = {}
        """Outputs whose prompt has not been read yet."""
        self._first: dict[int, float] = {}
        """When the first token under exactly this version was served."""

    def feedback(self, source: Coordinates, time_ms: int) -> None:
        """A feedback record and its append time."""
        self._feedback[source.partition, source.offset] = time_ms

    def receipt(self, receipt: Receipt) -> None:
        """A receipt of either stage."""
        if receipt.stage == "rewards" and receipt.outcome in _JOINED:
            place = (receipt.source.partition, receipt.source.offset)
            self._joined[place] = list(receipt.trajectories)
        elif receipt.stage == "trainer" and receipt.outcome == "trained":
            if receipt.version is not None:
                self._trained[receipt.subject_id] = receipt.version

    def prompt(self, prompt: Prompt) -> None:
        """When an answer was asked for."""
        self._asked[prompt.interaction_id] = prompt.event_time_ms
        for output in self._early.pop(prompt.interaction_id, ()):
            self.output(output)

    def output(self, output: Output) -> None:
        """An answer and the versions its tokens were made under."""
        asked_ms = self._asked.get(output.interaction_id)
        if asked_ms is None:
            self._early.setdefault(output.interaction_id, []).append(output)
            return
        for span in output.weight_versions:
            when_ms = token_time_ms(asked_ms, output, span.start)
            if span.version is not None and when_ms is not None and span.end > span.start:
                known = self._first.get(span.version, math.inf)
                self._first[span.version] = min(known, when_ms)

    def samples_s(self) -> list[float]:
        """Seconds from append to served, one for each feedback record that made it so far."""
        served: dict[int, float] = {}
        best = math.inf
        newest_first = sorted({*self._first, *self._trained.values()}, reverse=True)
        for version in newest_first:
            best = min(best, self._first.get(version, math.inf))
            served[version] = best
        samples = []
        for place, trajectories in self._joined.items():
            versions = [self._trained[t] for t in trajectories if t in self._trained]
            if not versions or place not in self._feedback:
                continue
            when_ms = served[min(versions)]
            if when_ms < math.inf:
                samples.append((when_ms - self._feedback[place]) / 1000)
        return samples
