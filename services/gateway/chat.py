"""One interaction: from the request to its records and to what the client sees. Pure.

:class:`Interaction` collects the engine's Deltas choice by choice. From it come the Prompt record
(at once), one Output record a choice (at the end, whatever the end was), and the answer in OpenAI's
shapes (:mod:`services.gateway.shapes`). Called by :mod:`services.gateway.app`.

Why an answer is not to be trained on, in this order: ``client_left``, ``empty``,
``unaccounted_tokens`` (a token without its logprob or span), ``unknown_version``,
``logprobs_mode``, the sampling parameter, ``too_large``.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

import msgspec

from services.gateway.answers import Delta, Logprob, sampled
from services.gateway.caller import Caller, Terms
from services.gateway.sampling import Sampling
from tailrace import packing
from tailrace.events import Output, OutputContent, Prompt, PromptContent, Route, VersionSpan

PROCESSED = "processed_logprobs"


class Choice:
    """What came of one choice so far."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.text: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[Logprob] = []
        self.finish_reason: str | None = None
        self.spans: list[VersionSpan] | None = None
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def add(self, delta: Delta, now_ms: int) -> None:
        self.text.append(delta.text)
        self.token_ids.extend(delta.token_ids)
        self.logprobs.extend(delta.logprobs)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.spans = delta.spans if delta.spans is not None else self.spans
        if delta.token_ids and self.first_ms is None:
            self.first_ms = now_ms
        self.last_ms = now_ms

    def versions(self) -> list[int]:
        """The weight versions that made this answer, in order."""
        return [span.version for span in self.spans or [] if span.version is not None]

    def unaccounted(self) -> str | None:
        """What is missing for the trainer to know each token's logprob and version."""
        if not self.token_ids:
            return "empty"
        if len(self.logprobs) != len(self.token_ids) or not all(map(sampled, self.logprobs)):
            return "unaccounted_tokens"
        if self.spans is None or any(span.version is None for span in self.spans):
            return "unknown_version"
        end = 0
        for span in self.spans:
            if span.start != end or span.end < span.start:
                return "unaccounted_tokens"
            end = span.end
        return None if end == len(self.token_ids) else "unaccounted_tokens"


class Interaction:
    """One request and its answer."""

    def __init__(
        self,
        *,
        interaction_id: str,
        caller: Caller,
        terms: Terms,
        model: str,
        name: str,
        version: int | None,
        engine: str,
        asked: list[dict[str, Any]] | str | list[int],
        token_ids: Sequence[int],
        sampling: Sampling,
        logprobs_mode: str,
        max_record_bytes: int,
        streamed: bool,
        now_ms: int,
    ) -> None:
        self.interaction_id = interaction_id
        self.name = name
        self.terms = terms
        self.sampling = sampling
        self.prompt_tokens = len(token_ids)
        self.begun_ms = now_ms
        self.choices = [Choice(index) for index in range(sampling.n)]
        self._engine = engine
        self._streamed = streamed
        self._logprobs_mode = logprobs_mode
        content = PromptContent(
            messages=msgspec.json.encode(asked).decode(),
            prompt_token_ids=packing.pack_ids(token_ids),
        )
        self._room_bytes = max_record_bytes - _size(content.messages, content.prompt_token_ids)
        self.prompt = Prompt(
            interaction_id=interaction_id,
            session_id=terms.session,
            event_time_ms=now_ms,
            tenant=caller.tenant,
            principal=caller.principal,
            user=terms.user,
            model=model,
            sampling=sampling.recorded,
            logprobs_mode=logprobs_mode,
            route=Route(channel="live", version=version, propensity=1.0),
            learn=terms.learn,
            task=terms.task,
            tags=terms.tags,
            content=content if self._room_bytes >= 0 else None,
        )

    def add(self, delta: Delta, now_ms: int) -> None:
        """Take one Delta. Raises IndexError for a choice that was not asked for."""
        self.choices[delta.choice].add(delta, now_ms)

    def versions(self) -> list[int]:
        """The weight versions of all choices, each once, in order."""
        return list(dict.fromkeys(v for choice in self.choices for v in choice.versions()))

    def completion_tokens(self) -> int:
        return sum(len(choice.token_ids) for choice in self.choices)

    def untrainable(self, choice: Choice, *, left: bool = False) -> str | None:
        """Why this choice must not be trained on, or None. ``left``: the client is gone."""
        if left and choice.finish_reason is None:
            return "client_left"
        missing = choice.unaccounted()
        if missing is not None:
            return missing
        if self._logprobs_mode != PROCESSED:
            return "logprobs_mode"
        if self.sampling.untrainable is not None:
            return self.sampling.untrainable
        return None if self._fits(choice) else "too_large"

    def outputs(self, now_ms: int, *, error: str | None = None, left: bool = False) -> list[Output]:
        """One Output a choice. ``error``: what ended those that did not finish by themselves."""
        return [self._output(choice, now_ms, error, left) for choice in self.choices]

    def _output(self, choice: Choice, now_ms: int, error: str | None, left: bool) -> Output:
        content = None
        if self._fits(choice):
            content = OutputContent(
                message=json.dumps(message(choice), ensure_ascii=False),
                token_ids=packing.pack_ids(choice.token_ids),
                logprobs=packing.pack_logprobs(entry.logprob for entry in choice.logprobs),
            )
        first_ms = choice.first_ms if self._streamed else None
        return Output(
            interaction_id=self.interaction_id,
            choice=choice.index,
            event_time_ms=now_ms,
            engine=self._engine,
            finish_reason=choice.finish_reason,
            weight_versions=choice.spans or [],
            ttft_ms=None if first_ms is None else float(first_ms - self.begun_ms),
            total_ms=float((choice.last_ms or now_ms) - self.begun_ms),
            error=error if choice.finish_reason is None else None,
            untrainable=self.untrainable(choice, left=left),
            content=content,
        )

    def _fits(self, choice: Choice) -> bool:
        text_bytes = sum(len(part.encode(errors="replace")) for part in choice.text)
        return text_bytes + 8 * len(choice.token_ids) <= self._room_bytes


def message(choice: Choice) -> dict[str, Any]:
    """The assistant's message as OpenAI has it."""
    return {"role": "assistant", "content": "".join(choice.text)}


def _size(*parts: str | bytes | None) -> int:
    return sum(len(p.encode() if isinstance(p, str) else p) for p in parts if p is not None)
