"""What says how good an answer to a task is: ``verifier.toml`` of a benchmark's folder.

    kind = "number"          # the last number of the answer is ``expected``, within ``tolerance``
    kind = "exact"           # the answer is ``expected``, but for white space at its ends
    kind = "regex"           # RE2's ``pattern`` is found; without one, each task's ``expected``
    kind = "words"           # ``min`` to ``max`` words; beyond, less by 1 / ``slope`` a word
    kind = "function"        # Python: ``function`` of ``file``, with TRL's reward signature

    metric = "task"          # of the feedback that says the score; also of every other kind
    max_tokens = 64          # of an answer
    finished = false         # true: an answer that was cut at max_tokens scores 0

Read by :mod:`.benchmark`. Every key that the kind has no use for is refused.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
import re
import tomllib
from typing import Literal

import msgspec

from tailrace.errors import SettingsError

FILE = "verifier.toml"
_METRIC = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COMMON = {"kind", "metric", "max_tokens", "finished"}
_KEYS = {
    "exact": {"ignore_case"},
    "number": {"tolerance"},
    "regex": {"pattern"},
    "words": {"min", "max", "slope"},
    "function": {"file", "function", "timeout_s"},
}


class Verifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One verifier as the file says it; ``file`` is an absolute path."""

    kind: Literal["exact", "number", "regex", "words", "function"]
    metric: str = "task"
    max_tokens: int = 64
    finished: bool = False
    ignore_case: bool = False
    tolerance: float = 1e-6
    pattern: str | None = None
    min: int = 0
    max: int | None = None
    slope: float = 0.0
    file: str = "verifier.py"
    function: str = "reward"
    timeout_s: float = 5.0
    code: bytes = b""
    """The Python file as :func:`load` found it. This runs, whatever becomes of the file."""
    mark: str = ""
    """12 hex digits that stand for all of it, the code included."""

    @property
    def needs_expected(self) -> bool:
        """Whether a task without ``expected`` makes no sense."""
        return self.kind in ("exact", "number") or (self.kind == "regex" and self.pattern is None)


def load(folder: Path) -> Verifier:
    """The verifier of a benchmark's folder. Raises SettingsError naming the file and the key."""
    file = folder / FILE
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from None
    try:
        verifier = msgspec.convert(document, Verifier)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        key = f"{where.rstrip('`')}: " if where else ""
        raise SettingsError(f"{file}: {key}{message}") from None
    for key in document:
        if key not in _COMMON | _KEYS[verifier.kind]:
            raise SettingsError(f"{file}: {key}: nothing that kind = {verifier.kind!r} has")
    code = _check(file, verifier)
    path = str((folder / verifier.file).absolute())
    return msgspec.structs.replace(verifier, file=path, code=code, mark=_mark(verifier, code))


def _mark(verifier: Verifier, code: bytes) -> str:
    told = msgspec.to_builtins(verifier) | {"file": ""}
    del told["code"], told["mark"]
    return hashlib.sha256(msgspec.json.encode(told, order="sorted") + code).hexdigest()[:12]


def _check(file: Path, verifier: Verifier) -> bytes:
    """The Python file, where it has one."""

    def wrong(key: str, why: str) -> SettingsError:
        return SettingsError(f"{file}: {key}: {why}")

    if not _METRIC.fullmatch(verifier.metric):
        raise wrong("metric", "a name is 1-64 of [A-Za-z0-9_.-]")
    if not 1 <= verifier.max_tokens <= 65_536:
        raise wrong("max_tokens", "must be between 1 and 65536")
    if not 0 <= verifier.tolerance < float("inf"):
        raise wrong("tolerance", "must be a number, and not negative")
    if verifier.kind == "words":
        if verifier.max is None and not verifier.min:
            raise wrong("max", "say how many words, at least (min) or at most (max)")
        if verifier.min < 0 or (verifier.max is not None and verifier.max < verifier.min):
            raise wrong("max", "must not be below min, nor min below 0")
        if not 0 <= verifier.slope < float("inf"):
            raise wrong("slope", "must be a number, and not negative")
    if verifier.kind == "function":
        if not 0.01 <= verifier.timeout_s <= 3600:
            raise wrong("timeout_s", "must be between 0.01 and 3600")
        return _code(file, verifier)
    return b""


def _code(file: Path, verifier: Verifier) -> bytes:
    path = file.parent / verifier.file
    try:
        code = path.read_bytes()
        tree = ast.parse(code, str(path))
    except OSError as error:
        raise SettingsError(f"{file}: file: {path}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise SettingsError(f"{file}: file: {path}: {error}") from None
    functions = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    if verifier.function not in functions:
        raise SettingsError(f"{file}: function: {path} has no {verifier.function!r}")
    return code
