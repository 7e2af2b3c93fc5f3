"""Request bodies: JSON bytes to typed bodies, with an error that says which field is wrong.

Unknown fields are refused rather than ignored; fields of OpenAI's API that change nothing here
(``store``, ``service_tier``, …) are taken and forgotten. Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from services.gateway.errors import ApiError, invalid

B = TypeVar("B")
_SWALLOWED_BYTES = 64 * 1024 * 1024
"""How much of a body that is too large is read, so that its sender gets to read the answer."""
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_ROLES = ("system", "developer", "user", "assistant", "tool")


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What chat and text requests have in common: OpenAI's fields, then vLLM's."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None

    # Taken and forgotten: they change nothing here.
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


class Message(msgspec.Struct, kw_only=True):
    """One message; other fields (tool_calls, audio) are looked at by :func:`plain`."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class ChatBody(Body, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


class TextBody(Body, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/completions``."""

    prompt: str | list[int | str] | None = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


async def read(request: Request, limit: int) -> bytes:
    """The body of a request. Raises ApiError (413) beyond ``limit`` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > _SWALLOWED_BYTES:
            break
    if size > limit:
        raise ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
    return b"".join(parts)


def decode(body: bytes, kind: type[B]) -> B:
    """A typed body. Raises ApiError (400) naming the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None


def _invalid(message: str) -> ApiError:
    unknown = _UNKNOWN.search(message)
    if unknown:
        name = unknown.group(1)
        return invalid(f"unrecognised request argument: {name}", name, "unknown_parameter")
    path = _PATH.search(message)
    return invalid(message, path.group(1) if path else None, "invalid_type")


def plain(body: ChatBody) -> list[dict[str, Any]]:
    """The messages as a chat template takes them: text alone.

    Raises ApiError (400) for what is not served: tools, images, audio, unknown roles.
    """
    if body.tools or body.functions or body.audio:
        name = "tools" if body.tools else "functions" if body.functions else "audio"
        raise invalid(f"{name} are not supported", name, "unsupported_parameter")
    if body.modalities and body.modalities != ["text"]:
        raise invalid("only text is supported", "modalities", "unsupported_parameter")
    if not body.messages:
        raise invalid("messages must not be empty", "messages")
    messages = []
    for number, message in enumerate(body.messages):
        param = f"messages[{number}]"
        if message.role not in _ROLES:
            raise invalid(f"role must be one of {', '.join(_ROLES)}", f"{param}.role")
        if message.tool_calls:
            raise invalid("tool calls are not supported", param, "unsupported_parameter")
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": _text(message.content, f"{param}.content")})
    return messages


def _text(content: str | list[dict[str, Any]] | None, param: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise invalid("only text parts are supported", param, "unsupported_parameter")
        texts.append(part["text"])
    return "".join(texts)


def prompt(body: TextBody) -> str | list[int]:
    """The one prompt of a text request. Raises ApiError (400) for several or none."""
    if body.echo or body.suffix or (body.best_of or 1) != (body.n or 1):
        name = "echo" if body.echo else "suffix" if body.suffix else "best_of"
        raise invalid(f"{name} is not supported", name, "unsupported_parameter")
    if not body.prompt:
        raise invalid("prompt must not be empty", "prompt")
    if isinstance(body.prompt, str):
        return body.prompt
    tokens = [token for token in body.prompt if isinstance(token, int)]
    if len(tokens) == len(body.prompt):
        return tokens
    if len(body.prompt) > 1 or not body.prompt[0]:
        raise invalid("one prompt a request", "prompt", "unsupported_parameter")
    return str(body.prompt[0])
