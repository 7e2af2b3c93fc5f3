"""The graders' spec: which functions and judges there are. Read once, at start.

A TOML file, ``[graders] spec`` in the settings::

    [functions.polite]           # Python with the signature of TRL's reward functions
    file = "polite.py"           # beside this file
    function = "reward"
    timeout_s = 5                # for one call; the process it runs in is killed then
    batch = 16                   # answers a call, where so many wait

    [judges.helpful]             # a model behind an OpenAI-compatible URL
    url = "http://127.0.0.1:8000/v1"
    model = "judge"
    key = "helpful"              # name under [graders] keys; leave out: no key is sent
    prompt = "Question: {question}\\nAnswer: {answer}\\nHow helpful, 1 to 5? One number."
    range = [1, 5]               # of the number in its answer; feedback is this mapped to 0..1
    timeout_s = 20               # for one request
    attempts = 3
    concurrency = 4              # requests at a time

Both also take ``metric`` (default: the grader's name), ``max_age_s`` (300: an answer that has lain
longer on the log is skipped; inf: none is) and ``share`` (1.0: of all answers, by a hash of the id,
so a replay grades the same ones).
"""

from __future__ import annotations

import ast
import hashlib
import math
from pathlib import Path
import re
import tomllib
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from tailrace.errors import SettingsError

_NAME = re.compile(r"[a-z0-9_-]{1,40}")
"""It is part of feedback ids, of a consumer group and of a file's name."""


class Grader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What functions and judges have in common."""

    metric: str = ""
    max_age_s: float = 300.0
    share: float = 1.0


class Function(Grader, frozen=True, kw_only=True):
    """A Python function in a file."""

    file: str
    function: str
    timeout_s: float = 5.0
    batch: int = 16

    def hash(self, source: bytes) -> str:
        """12 hex digits that stand for what it is; ``source`` are the file's bytes."""
        return _hash(b"function", self.metric, self.function, source)


class Judge(Grader, frozen=True, kw_only=True):
    """A model that is asked for a number."""

    url: str
    model: str
    prompt: str
    range: tuple[float, float]
    key: str | None = None
    timeout_s: float = 20.0
    attempts: int = 3
    concurrency: int = 4

    def hash(self) -> str:
        """12 hex digits that stand for what it is, wherever it is served."""
        return _hash(b"judge", self.metric, self.model, self.prompt, repr(self.range))


G = TypeVar("G", bound=Grader)


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """All graders by name; no name is used twice. Functions' files are absolute paths."""

    functions: dict[str, Function] = {}
    judges: dict[str, Judge] = {}


def load(file: Path, keys: dict[str, str]) -> Spec:
    """Read a spec. Raises SettingsError naming the file and the key."""
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"graders.spec: {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from None
    for family in document:
        if family not in ("functions", "judges"):
            raise SettingsError(f"{file}: {family}: unknown key")
    functions = _family(file, document, "functions", Function)
    judges = _family(file, document, "judges", Judge)
    if not functions and not judges:
        raise SettingsError(f"{file}: no grader in it")
    for name in functions.keys() & judges.keys():
        raise SettingsError(f"{file}: judges.{name}: a function has that name")
    for name, function in functions.items():
        path = file.absolute().parent / Path(function.file).expanduser()
        _check_function(file, f"functions.{name}", function, path)
        functions[name] = msgspec.structs.replace(function, file=str(path))
    for name, judge in judges.items():
        _check_judge(file, f"judges.{name}", judge, keys)
    return Spec(functions=functions, judges=judges)


def _family(file: Path, document: dict[str, Any], family: str, kind: type[G]) -> dict[str, G]:
    tables = document.get(family, {})
    if not isinstance(tables, dict):
        raise SettingsError(f"{file}: {family}: a table of tables")
    made: dict[str, G] = {}
    for name, table in tables.items():
        path = f"{family}.{name}"
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{file}: {path}: a name is 1-40 of [a-z0-9_-]")
        try:
            grader = msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            raise SettingsError(f"{file}: {path}{where.rstrip('`')}: {message}") from None
        if not 0 < grader.share <= 1:
            raise SettingsError(f"{file}: {path}.share: must be above 0, and 1 at most")
        if not grader.max_age_s > 0:
            raise SettingsError(f"{file}: {path}.max_age_s: must be above 0")
        made[name] = msgspec.structs.replace(grader, metric=grader.metric or name)
    return made


def _check_function(file: Path, path: str, function: Function, code: Path) -> None:
    _check_range(file, f"{path}.timeout_s", function.timeout_s, 0.01, 3600)
    _check_range(file, f"{path}.batch", function.batch, 1, 1024)
    try:
        tree = ast.parse(code.read_bytes(), str(code))
    except OSError as error:
        raise SettingsError(f"{file}: {path}.file: {code}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise SettingsError(f"{file}: {path}.file: {code}: {error}") from None
    if function.function not in _names(tree):
        raise SettingsError(f"{file}: {path}.function: {code} has no {function.function!r}")


def _names(tree: ast.Module) -> set[str]:
    """What a module binds at its top level, as far as it can be seen without running it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def _check_judge(file: Path, path: str, judge: Judge, keys: dict[str, str]) -> None:
    try:
        parts = urlsplit(judge.url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or not judge.url.isascii() or " " in judge.url:
        raise SettingsError(f"{file}: {path}.url: must be a URL with http:// or https://")
    if "{answer}" not in judge.prompt:
        raise SettingsError(f"{file}: {path}.prompt: {{answer}} is not in it")
    low, high = judge.range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(f"{file}: {path}.range: two numbers, the lower one first")
    if judge.key is not None and judge.key not in keys:
        raise SettingsError(f"{file}: {path}.key: {judge.key!r} is not in graders.keys")
    key = keys.get(judge.key or "", "")
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(f"graders.keys.{judge.key}: must be printable ASCII")
    _check_range(file, f"{path}.timeout_s", judge.timeout_s, 0.01, 3600)
    _check_range(file, f"{path}.attempts", judge.attempts, 1, 20)
    _check_range(file, f"{path}.concurrency", judge.concurrency, 1, 256)


def _check_range(file: Path, path: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{file}: {path}: must be between {low} and {high}")


def _hash(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        body = part.encode() if isinstance(part, str) else part
        whole.update(len(body).to_bytes(8, "big") + body)
    return whole.hexdigest()[:12]
