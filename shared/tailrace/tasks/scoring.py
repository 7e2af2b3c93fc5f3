"""Scores of answers to tasks. In: replies. Out: for each a finite score, or a reason for none.

Built-in verifiers are pure and give 0 to 1; patterns are RE2's, matched in time linear in the text.
A text longer than :data:`MAX_CHARACTERS` they give no score, for the reason ``too_long``. A Python
verifier runs in a process of its own (:mod:`.function`) and may give any number. Made by
``services.rollouts`` and ``tailrace eval``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tailrace.checks import finder, last_number, within
from tailrace.errors import SettingsError
from tailrace.functions.calls import Child, Failed
from tailrace.tasks.benchmark import Benchmark, Task
from tailrace.tasks.verifier import Verifier

MAX_CHARACTERS = 20_000


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a task."""

    task: Task
    text: str
    finish_reason: str | None = None
    """``length``: it was cut."""
    token_ids: Sequence[int] = ()


class Score(msgspec.Struct, frozen=True):
    """A number, or a fixed word that says why there is none."""

    number: float | None = None
    reason: str | None = None


class Scorer:
    """The verifier of one benchmark. For one thread; a context manager.

    Raises SettingsError where a pattern is none, or the library that matches it is not there.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self._verifier = benchmark.verifier
        self._function: Child | None = None
        self._patterns: dict[str, Callable[[str], bool]] = {}
        if self._verifier.kind == "function":
            known = self._verifier
            self._function = Child(known.file, known.function, known.code)
        elif self._verifier.kind == "regex":
            whole = [] if self._verifier.pattern is None else [self._verifier.pattern]
            for text in whole or [str(task.expected) for task in benchmark.tasks]:
                self._patterns[text] = _pattern(text, benchmark.name)

    def score(self, replies: Sequence[Reply]) -> list[Score]:
        """One score a reply. Never raises: what fails is a reason."""
        if self._function is None:
            return [self._one(reply) for reply in replies]
        try:
            values = self._function.call(request(replies), self._verifier.timeout_s)
            found = [_said(value) for value in values]
        except Failed as error:
            return [Score(reason=error.reason)] * len(replies)
        cut = [self._verifier.finished and reply.finish_reason == "length" for reply in replies]
        return [Score(0.0) if cut[at] else found[at] for at in range(len(replies))]

    def kill(self) -> None:
        """End the process of a Python verifier, for good. May come from any thread."""
        if self._function is not None:
            self._function.kill(for_good=True)

    def close(self) -> None:
        """End it and let go of it."""
        if self._function is not None:
            self._function.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _one(self, reply: Reply) -> Score:
        if len(reply.text) > MAX_CHARACTERS:
            return Score(reason="too_long")
        if self._verifier.finished and reply.finish_reason == "length":
            return Score(0.0)
        return Score(_built_in(self._verifier, reply, self._patterns))


def request(replies: Sequence[Reply]) -> dict[str, Any]:
    """The arguments of one call, as TRL has them: a chat's answer is a list of one message, a plain
    prompt's a string; a column that only some tasks have is None for the others."""
    names = dict.fromkeys(name for reply in replies for name in reply.task.columns)
    columns: dict[str, list[Any]] = {
        name: [reply.task.columns.get(name) for reply in replies] for name in names
    }
    columns["id"] = [reply.task.id for reply in replies]
    columns["expected"] = [reply.task.expected for reply in replies]
    columns["finish_reason"] = [reply.finish_reason for reply in replies]
    return {
        "prompts": [reply.task.asked for reply in replies],
        "completions": [
            [{"role": "assistant", "content": reply.text}] if reply.task.messages else reply.text
            for reply in replies
        ],
        "completion_ids": [list(reply.token_ids) for reply in replies],
        "columns": columns,
    }


def _said(value: Any) -> Score:
    if isinstance(value, float):
        return Score(value)
    return Score(reason="nothing_to_say" if value is None else str(value))


def _built_in(
    verifier: Verifier, reply: Reply, patterns: dict[str, Callable[[str], bool]]
) -> float:
    text, expected = reply.text.strip(), reply.task.expected
    if verifier.kind == "words":
        return within(len(text.split()), verifier.min, verifier.max, verifier.slope)
    if verifier.kind == "regex":
        return float(patterns[verifier.pattern or str(expected)](reply.text))
    if verifier.kind == "number":
        found = last_number(text)
        assert isinstance(expected, int | float)
        return float(found is not None and abs(found - expected) <= verifier.tolerance)
    wanted = str(expected).strip()
    if verifier.ignore_case:
        text, wanted = text.casefold(), wanted.casefold()
    return float(text == wanted)


def _pattern(pattern: str, name: str) -> Callable[[str], bool]:
    try:
        return finder(pattern)
    except ImportError:
        raise SettingsError(f"{name}: a regex verifier needs google-re2") from None
    except ValueError as error:
        raise SettingsError(f"{name}: pattern {pattern!r}: {error}") from None
