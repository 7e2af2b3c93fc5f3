"""Conversations as TRL's layouts have them: roles and texts. Pure.

What cannot be said that way (images, calls of tools, a plain prompt without roles) is a
:class:`Unfit`, whose message is the reason under which it is counted.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.events import Trajectory

Message = dict[str, str]


class Unfit(ValueError):
    """A trajectory is no conversation of texts, or none that may be trained on."""


def usable(one: Trajectory) -> None:
    """Raises Unfit where a trajectory has no texts, or says itself that it is no good answer."""
    if one.content is None or one.content.messages is None:
        raise Unfit("no_content")
    if one.error is not None:
        raise Unfit("error")


def prompt(one: Trajectory) -> list[Message]:
    """What was asked. Raises Unfit."""
    usable(one)
    assert one.content is not None and one.content.messages is not None
    said = _decoded(one.content.messages)
    if isinstance(said, str):
        raise Unfit("plain_prompt")
    if not isinstance(said, list) or not said:
        raise Unfit("unreadable")
    return [_message(each) for each in said]


def answer(one: Trajectory) -> list[Message]:
    """What was answered. Raises Unfit."""
    usable(one)
    assert one.content is not None
    if one.content.message is None:
        raise Unfit("no_content")
    said = _decoded(one.content.message)
    if isinstance(said, dict):
        said = {"role": "assistant", **said}
    return [_message(said)]


def demonstration(one: Trajectory) -> list[Message] | None:
    """What the answer should have been; None: nobody said."""
    text = one.content.demonstration if one.content is not None else None
    return None if text is None else [{"role": "assistant", "content": text}]


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise Unfit("unreadable") from None


def _message(said: Any) -> Message:
    if not isinstance(said, dict) or not isinstance(said.get("role"), str):
        raise Unfit("unreadable")
    if said.get("tool_calls") or said.get("function_call") or said["role"] in ("tool", "function"):
        raise Unfit("tools")
    content = said.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise Unfit("not_text")
        content = "".join(str(part) for part in parts)
    if not isinstance(content, str):
        raise Unfit("not_text")
    return {"role": said["role"], "content": content}
