"""A private benchmark: a folder with ``tasks.jsonl`` and ``verifier.toml``, checked as it is read.

A line of ``tasks.jsonl`` is one task::

    {"id": "a", "prompt": "…", "expected": 7, "split": "train"}
    {"id": "b", "messages": [{"role": "user", "content": "…"}], "expected": 9, "split": "heldout"}

``prompt`` is plain text, ``messages`` a chat; ``columns`` (an object) is for a Python verifier,
which gets each as an argument of its own. The folder's name is the benchmark's. No task is in both
halves. Lines end with a line feed; other separators of lines are text like any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import re
from typing import Any, Literal

import msgspec

from tailrace.errors import SettingsError
from tailrace.tasks import verifier as verifiers
from tailrace.tasks.verifier import Verifier

FILE = "tasks.jsonl"
Split = Literal["train", "heldout"]
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OWN = {"prompts", "completions", "completion_ids", "trainer_state"} | {
    *("id", "expected", "finish_reason")
}


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a chat, as OpenAI has it; text alone."""

    role: Literal["system", "user", "assistant"]
    content: str


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line."""

    id: str
    messages: list[Message] | None = None
    prompt: str | None = None
    expected: str | float | int | None = None
    split: Split = "train"
    columns: dict[str, Any] = {}

    @property
    def asked(self) -> list[dict[str, str]] | str:
        """The messages as OpenAI has them, or the plain prompt."""
        if self.messages is None:
            assert self.prompt is not None
            return self.prompt
        return [{"role": one.role, "content": one.content} for one in self.messages]


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """A folder, read and checked."""

    name: str
    tasks: tuple[Task, ...]
    verifier: Verifier

    def split(self, name: Split) -> tuple[Task, ...]:
        """The tasks of one half, in the file's order."""
        return tuple(task for task in self.tasks if task.split == name)


def load(folder: Path) -> Benchmark:
    """Read a folder. Raises SettingsError naming the file, the line and what is wrong with it."""
    name = folder.absolute().name
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{folder}: the folder's name is 1-40 of [a-z0-9_-]")
    verifier = verifiers.load(folder)
    file = folder / FILE
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: {error}") from None
    tasks: list[Task] = []
    asked: dict[bytes, Task] = {}
    known: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        task = _task(where, line, verifier)
        if task.id in known:
            raise SettingsError(f"{where}: id: {task.id!r} is there already")
        same = asked.setdefault(msgspec.json.encode(task.asked), task)
        if same.split != task.split:
            raise SettingsError(f"{where}: asks what {same.id!r} of the other split asks")
        known.add(task.id)
        tasks.append(task)
    if not tasks:
        raise SettingsError(f"{file}: no task in it")
    return Benchmark(name=name, tasks=tuple(tasks), verifier=verifier)


def load_all(folders: Sequence[Path]) -> list[Benchmark]:
    """Several folders, no two of one name. Raises SettingsError."""
    found: dict[str, Benchmark] = {}
    for folder in folders:
        one = load(folder)
        if one.name in found:
            raise SettingsError(f"{folder}: two benchmarks are called {one.name!r}")
        found[one.name] = one
    return list(found.values())


def _task(where: str, line: str, verifier: Verifier) -> Task:
    try:
        task = msgspec.json.decode(line, type=Task)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"{where}: {error}") from None
    if not _ID.fullmatch(task.id):
        raise SettingsError(f"{where}: id: 1-64 of [A-Za-z0-9._-]")
    if (task.messages is None) == (task.prompt is None):
        raise SettingsError(f"{where}: either messages or prompt")
    if not task.asked:
        raise SettingsError(f"{where}: it asks nothing")
    if task.messages is not None and task.messages[-1].role != "user":
        raise SettingsError(f"{where}: messages: the last one is the user's")
    if task.expected is None and verifier.needs_expected:
        raise SettingsError(f"{where}: expected: kind = {verifier.kind!r} needs it")
    if verifier.kind == "number" and isinstance(task.expected, str):
        raise SettingsError(f"{where}: expected: a number, not text")
    if verifier.kind in ("exact", "regex") and not isinstance(task.expected, str | None):
        raise SettingsError(f"{where}: expected: text, not a number")
    if own := sorted(_OWN & task.columns.keys()):
        raise SettingsError(f"{where}: columns: {own[0]} is not free")
    return task
