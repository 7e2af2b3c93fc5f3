"""Sampling parameters: what the engine gets, what the Prompt record says, what rules training out.

The trainer needs the log-probability of each token under the distribution it was drawn from. The
engine gives processed logprobs, and the trainer divides by the same temperature; whatever else
reshapes the distribution (truncation, penalties, bias, grammar, greedy choice) cannot be undone
without the captured mask, so the answer is ``untrainable: <parameter>``.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from services.gateway.errors import invalid
from services.gateway.requests import Body, ChatBody, TextBody

_COLDEST = 0.01
"""vLLM samples any temperature below as this one, and 0 greedily (sampling_params._MAX_TEMP)."""
_MOST_LOGPROBS = 20
_MOST_STOPS = 16
_INT64 = 2**63 - 1
_RECORDED_BYTES = 256 * 1024
_RESHAPING = (
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
    "allowed_token_ids",
    "bad_words",
    "response_format",
)
_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "ignore_eos": False,
}


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is sampled."""

    n: int
    engine: dict[str, Any]
    """``sampling_params`` of the engine's generate call."""
    recorded: dict[str, str]
    """Prompt.sampling: every parameter that is not the default, as JSON text; n always."""
    untrainable: str | None
    """The first parameter that rules training out."""
    top_logprobs: int | None
    """How many alternatives the client asked for; None: it wants no logprobs."""


def read(body: Body, *, vocabulary: int, max_choices: int) -> Sampling:
    """Validate and sort the sampling parameters. Raises ApiError (400) naming the parameter."""
    n = _within("n", body.n, 1, max_choices, 1)
    given: dict[str, Any] = {
        "temperature": _within("temperature", body.temperature, 0.0, 2.0),
        "top_p": _within("top_p", body.top_p, 1e-6, 1.0),
        "top_k": _within("top_k", None if body.top_k == -1 else body.top_k, 0, _INT64),
        "min_p": _within("min_p", body.min_p, 0.0, 1.0),
        "presence_penalty": _within("presence_penalty", body.presence_penalty, -2.0, 2.0),
        "frequency_penalty": _within("frequency_penalty", body.frequency_penalty, -2.0, 2.0),
        "repetition_penalty": _within("repetition_penalty", body.repetition_penalty, 0.01, 10.0),
        "max_tokens": _within("max_tokens", _max_tokens(body), 1, 2**31 - 1),
        "min_tokens": _within("min_tokens", body.min_tokens, 0, 2**31 - 1),
        "seed": _within("seed", body.seed, -_INT64, _INT64),
        "ignore_eos": body.ignore_eos,
        "stop": _stop(body.stop),
        "stop_token_ids": _tokens("stop_token_ids", body.stop_token_ids, vocabulary),
        "allowed_token_ids": _tokens("allowed_token_ids", body.allowed_token_ids, vocabulary),
        "bad_words": body.bad_words,
        "logit_bias": _bias(body.logit_bias, vocabulary),
    }
    if given["min_tokens"] and given["max_tokens"] and given["min_tokens"] > given["max_tokens"]:
        raise invalid("min_tokens is more than max_tokens", "min_tokens")
    changed = {
        name: value
        for name, value in given.items()
        if value not in (None, [], {}) and value != _DEFAULTS.get(name)
    }
    engine = dict(changed)
    if isinstance(body, ChatBody) and body.response_format:
        grammar = _grammar(body.response_format)
        if grammar is not None:
            changed["response_format"] = body.response_format
            engine["structured_outputs"] = grammar
    top_logprobs = _top_logprobs(body)
    # 0: the logprob of the sampled token alone, which every record needs.
    engine |= {"n": n, "logprobs": top_logprobs or 0}
    recorded = {name: json.dumps(value) for name, value in changed.items()} | {"n": str(n)}
    largest = max(recorded, key=lambda name: len(recorded[name]))
    if sum(map(len, recorded.values())) > _RECORDED_BYTES:
        raise invalid(f"the parameters take more than {_RECORDED_BYTES} bytes", largest)
    return Sampling(
        n=n,
        engine=engine,
        recorded=recorded,
        untrainable=_untrainable(changed),
        top_logprobs=top_logprobs,
    )


def _untrainable(changed: dict[str, Any]) -> str | None:
    if changed.get("temperature", 1.0) < _COLDEST:
        return "temperature"
    return next((name for name in _RESHAPING if name in changed), None)


def _within(name: str, value: Any, low: Any, high: Any, default: Any = None) -> Any:
    if value is None:
        return default
    if not low <= value <= high:
        raise invalid(f"{name} must be between {low} and {high}", name)
    return value


def _max_tokens(body: Body) -> int | None:
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        return body.max_completion_tokens
    if isinstance(body, TextBody) and body.max_tokens is None:
        return 16  # the text API's documented default; the chat API has none
    return body.max_tokens


def _stop(stop: str | list[str] | None) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop
    if stops and (len(stops) > _MOST_STOPS or not all(stops)):
        raise invalid(f"stop must be at most {_MOST_STOPS} strings, none empty", "stop")
    return stops


def _tokens(name: str, tokens: list[int] | None, vocabulary: int) -> list[int] | None:
    if tokens and not all(0 <= token < vocabulary for token in tokens):
        raise invalid(f"{name} must be token ids below {vocabulary}", name)
    return tokens


def _bias(bias: dict[str, float] | None, vocabulary: int) -> dict[str, float] | None:
    for token, value in (bias or {}).items():
        if not (token.isascii() and token.isdigit() and int(token[:12]) < vocabulary):
            raise invalid(f"logit_bias: {token!r} is no token id", "logit_bias")
        _within("logit_bias", value, -100.0, 100.0)
    return bias


def _grammar(wanted: dict[str, Any]) -> dict[str, Any] | None:
    kind = wanted.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"json_object": True}
    if kind == "json_schema":
        schema = wanted.get("json_schema")
        if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            return {"json": schema["schema"]}
    raise invalid("response_format must be text, json_object or json_schema", "response_format")


def _top_logprobs(body: Body) -> int | None:
    if isinstance(body, TextBody):
        wanted: int | None = _within("logprobs", body.logprobs, 0, _MOST_LOGPROBS)
        return wanted
    assert isinstance(body, ChatBody)
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    top: int = _within("top_logprobs", body.top_logprobs, 0, _MOST_LOGPROBS, 0)
    return top if body.logprobs else None
