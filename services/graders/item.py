"""What is graded: an answer with what it answers. Pure; made by :mod:`.grader` from two records."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from tailrace import ids, packing
from tailrace.errors import InvalidRecord
from tailrace.events import Output, Prompt
from tailrace.log.base import LogRecord
from tailrace.partition import partition_of
from tailrace.traces import of_record

MAX_CHOICES = 128
"""Rewards takes no feedback on a choice beyond."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of one answer, and where its output lies."""

    interaction_id: str
    choice: int
    partition: int
    offset: int
    time_ms: int
    """Append time of the output."""
    prompt: list[dict[str, Any]] | str
    """OpenAI messages, or the plain prompt."""
    completion: dict[str, Any]
    """The assistant's message."""
    completion_ids: list[int]
    columns: dict[str, str | None]
    """The prompt's tags, and ``task`` and ``finish_reason``."""
    traceparent: str = ""
    """Of the output; empty: it has none."""

    @property
    def answer(self) -> str:
        """The completion's text."""
        return text_of(self.completion.get("content"))

    @property
    def question(self) -> str:
        """The last thing the user said."""
        if isinstance(self.prompt, str):
            return self.prompt
        asked = [message for message in self.prompt if message.get("role") == "user"]
        return text_of(asked[-1].get("content")) if asked else ""


class Verdict(msgspec.Struct, frozen=True):
    """What a grader says of an item: a number, or a reason why there is none."""

    number: float | None = None
    reason: str | None = None
    """None where there is no number either: it had nothing to say."""
    traceparent: str = ""
    """Of the call that it is from; empty: there was none now, or there are no traces."""


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def check_place(record: LogRecord, interaction: str, partitions: int) -> None:
    """Raises InvalidRecord where rewards would not take the record either."""
    if not ids.is_interaction(interaction) or "!" in interaction:
        raise InvalidRecord("id", f"{interaction!r} is no interaction id")
    if partition_of(ids.session_of(interaction).encode(), partitions) != record.partition:
        raise InvalidRecord("misplaced", f"{interaction!r} does not belong there")


def drawn(interaction: str, choice: int, share: float) -> bool:
    """Whether an answer is among the ``share`` that is graded; the same each time."""
    mark = hashlib.sha256(f"{interaction}/{choice}".encode()).digest()
    return int.from_bytes(mark[:8], "big") < share * 2**64


def check_output(output: Output) -> None:
    """Raises InvalidRecord, with the reason, for an answer that there is no need to look at."""
    if not 0 <= output.choice < MAX_CHOICES:
        raise InvalidRecord("choice", str(output.choice))
    if output.error is not None:
        raise InvalidRecord("error", output.error)
    if output.content is None or output.content.message is None:
        raise InvalidRecord("no_content")


def make(prompt: Prompt, output: Output, record: LogRecord) -> Item:
    """The item of a prompt and one of its outputs, which ``record`` is.

    Raises InvalidRecord, with the reason, where it is not to be graded.
    """
    if not prompt.learn:
        raise InvalidRecord("no_consent")
    if prompt.content is None or prompt.content.messages is None:
        raise InvalidRecord("no_content", "of the prompt")
    check_output(output)
    assert output.content is not None and output.content.message is not None
    asked = _parsed(prompt.content.messages)
    said = _parsed(output.content.message)
    wrong = not isinstance(asked, str | list) or not isinstance(said, dict)
    if wrong or (isinstance(asked, list) and not all(isinstance(m, dict) for m in asked)):
        raise InvalidRecord("undecodable", "neither messages nor a plain prompt")
    try:
        tokens = packing.unpack_ids(output.content.token_ids)
    except ValueError as error:
        raise InvalidRecord("undecodable", str(error)) from None
    return Item(
        interaction_id=output.interaction_id,
        choice=output.choice,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.time_ms,
        prompt=asked,
        completion={"role": "assistant", **said},
        completion_ids=tokens,
        columns={**prompt.tags, "task": prompt.task, "finish_reason": output.finish_reason},
        traceparent=of_record(record.headers),
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord("undecodable", repr(error)) from None
