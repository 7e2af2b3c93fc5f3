"""The reward spec: what feedback is worth, and how long to wait for it. Read by join and score.

A TOML file; every key but those of verifiers' kinds has a default::

    wait_s = 3               # wait for feedback this long after an answer
    late = "correct"         # feedback after that: "correct" the trajectory, or "drop"
    orphan_s = 3600          # a prompt, answer or feedback alone is given up after this
    horizon_s = 604_800      # an interaction can be corrected for this long
    default_reward = 0.0     # when nobody says anything; leave out: no reward
    combine = "mean"         # weighted "mean" or "sum" of the terms that have a value
    clip = [-1.0, 1.0]       # leave out: no bounds

    [metrics.thumbs]         # a term made of the feedback of one metric
    weight = 1.0
    aggregate = "last"       # of several: last, mean, min, max or sum
    final = false            # true: nothing more is waited for once it was said
    true = 1.0               # what a boolean is worth
    false = -1.0
    categories = { good = 1.0, bad = 0.0 }

    [verifiers.brief]        # a term made of the answer alone, 1.0 for pass and 0.0 for fail
    kind = "length"          # words (or unit = "tokens", "characters") between min and max
    max = 40
    weight = 0.5

Other kinds of verifier: ``finished``; ``regex`` (pattern); ``json_schema`` (schema, a table);
``exact`` and ``numeric`` (answer_tag: the prompt's tag that holds the right answer; numeric:
tolerance).

The spec's hash is in every trajectory. It covers the meaning, not the text: comments do not change
it.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
import re
import tomllib
from typing import Any, Literal, TypeVar

import msgspec

from tailrace.errors import SettingsError

DAY_S = 24 * 3600.0
T = TypeVar("T")


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A term of the reward that feedback makes."""

    weight: float = 1.0
    aggregate: Literal["last", "mean", "min", "max", "sum"] = "last"
    final: bool = False
    true: float = 1.0
    false: float = 0.0
    categories: dict[str, float] = {}


class Verifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A term of the reward that the answer itself makes: pure and bounded."""

    kind: Literal["regex", "length", "finished", "json_schema", "exact", "numeric"]
    weight: float = 1.0
    passed: float = 1.0
    failed: float = 0.0
    pattern: str | None = None
    unit: Literal["words", "tokens", "characters"] = "words"
    min: int = 0
    max: int | None = None
    schema: dict[str, Any] | None = None
    answer_tag: str = "answer"
    tolerance: float = 1e-6


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole reward spec. Times in seconds of log time."""

    wait_s: float = 600.0
    late: Literal["correct", "drop"] = "correct"
    orphan_s: float = 3600.0
    horizon_s: float = 7 * DAY_S
    default_reward: float | None = None
    combine: Literal["mean", "sum"] = "mean"
    clip: tuple[float, float] | None = None
    metrics: dict[str, Metric] = {}
    verifiers: dict[str, Verifier] = {}

    @property
    def wait_ms(self) -> int:
        """The wait window."""
        return round(self.wait_s * 1000)

    @property
    def orphan_ms(self) -> int:
        """The orphan time-out."""
        return round(self.orphan_s * 1000)

    @property
    def horizon_ms(self) -> int:
        """The correction horizon."""
        return round(self.horizon_s * 1000)

    def hash(self) -> str:
        """16 hex digits that stand for the spec's meaning."""
        body = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(body).hexdigest()[:16]


def load(file: Path) -> Spec:
    """Read a spec. Raises SettingsError naming the file, the line and the key."""
    try:
        text = file.read_text()
    except OSError as error:
        raise SettingsError(f"rewards.spec: {file}: {error.strerror}") from None
    return parse(text, str(file))


def parse(text: str, name: str = "spec") -> Spec:
    """A spec from its text. Raises SettingsError naming the file, the line and the key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: {error}") from None
    source = _Source(text, name)
    tables: dict[str, dict[str, Any]] = {}
    for family, kind in (("metrics", Metric), ("verifiers", Verifier)):
        given = document.pop(family, {})
        if not isinstance(given, dict):
            raise source.error(family, "a table of tables")
        tables[family] = {
            key: source.convert(table, kind, f"{family}.{key}") for key, table in given.items()
        }
    for key, verifier in tables["verifiers"].items():
        _check_verifier(source, f"verifiers.{key}", verifier)
    for key in set(tables["metrics"]) & set(tables["verifiers"]):
        raise source.error(f"verifiers.{key}", "a metric has that name")
    spec = msgspec.structs.replace(source.convert(document, Spec, ""), **tables)
    _check(source, spec)
    return spec


class _Source:
    """The text that errors point into."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def convert(self, value: Any, kind: type[T], path: str) -> T:
        if isinstance(value, dict):
            for key in value:
                if key not in kind.__struct_fields__:  # type: ignore[attr-defined]
                    raise self.error(f"{path}.{key}".lstrip("."), "unknown key")
            for key, part in value.items():
                if isinstance(part, float) and not math.isfinite(part):
                    raise self.error(f"{path}.{key}".lstrip("."), "must be finite")
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            inner = where.rstrip("`").replace("[...]", "")
            raise self.error(f"{path}{inner}".lstrip("."), message) from None

    def error(self, path: str, message: str) -> SettingsError:
        return SettingsError(f"{self._name}:{self._line(path)}: {path}: {message}")

    def _line(self, path: str) -> int:
        """Where a key stands: looked for below its table's header, else the header, else line 1."""
        table, _, key = path.rpartition(".")
        start = 0
        for wanted in (path, table):
            for number, line in enumerate(self._lines):
                if wanted and re.match(rf"\s*\[\s*{re.escape(wanted)}\s*\]", line):
                    if wanted == path:
                        return number + 1
                    start = number
        for number, line in enumerate(self._lines[start:], start):
            if re.match(rf"\s*{re.escape(key)}\s*[=.]", line):
                return number + 1
        return start + 1


def _check(source: _Source, spec: Spec) -> None:
    for key in ("wait_s", "orphan_s"):
        if getattr(spec, key) < 0:
            raise source.error(key, "must not be negative")
    if spec.horizon_s < max(spec.wait_s, spec.orphan_s):
        raise source.error("horizon_s", "must not be shorter than wait_s and orphan_s")
    if spec.clip is not None and not spec.clip[0] <= spec.clip[1]:
        raise source.error("clip", "the lower bound is above the upper one")
    if not all(math.isfinite(bound) for bound in spec.clip or ()):
        raise source.error("clip", "must be finite")
    if spec.combine == "mean":
        for family, terms in (("metrics", spec.metrics), ("verifiers", spec.verifiers)):
            for key, term in terms.items():
                if term.weight <= 0:  # type: ignore[attr-defined]
                    raise source.error(
                        f"{family}.{key}.weight", 'must be positive where combine = "mean"'
                    )
    for key, metric in spec.metrics.items():
        if not all(math.isfinite(worth) for worth in metric.categories.values()):
            raise source.error(f"metrics.{key}.categories", "must be finite")


def _check_verifier(source: _Source, path: str, verifier: Verifier) -> None:
    if verifier.kind == "regex":
        if verifier.pattern is None:
            raise source.error(f"{path}.pattern", "a regex verifier needs one")
        try:
            re.compile(verifier.pattern)
        except re.error as error:
            raise source.error(f"{path}.pattern", str(error)) from None
        if _nests_repeats(re._parser.parse(verifier.pattern)):  # type: ignore[attr-defined]
            # It can take time exponential in the answer's length, and so stop every partition.
            raise source.error(f"{path}.pattern", "an unbounded repeat inside an unbounded repeat")
    elif verifier.kind == "json_schema":
        import jsonschema

        if verifier.schema is None:
            raise source.error(f"{path}.schema", "a json_schema verifier needs one")
        try:
            jsonschema.Draft202012Validator.check_schema(verifier.schema)
        except jsonschema.SchemaError as error:
            raise source.error(f"{path}.schema", error.message) from None


def _nests_repeats(parsed: Any, inside: bool = False) -> bool:
    for op, argument in parsed:
        unbounded = str(op) in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] > 1000
        if unbounded and inside:
            return True
        for part in argument if isinstance(argument, (tuple, list)) else ():
            parts = part if isinstance(part, list) else [part]
            for inner in parts:
                if type(inner).__name__ == "SubPattern" and _nests_repeats(
                    inner, inside or unbounded
                ):
                    return True
    return False
