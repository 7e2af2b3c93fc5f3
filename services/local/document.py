"""The one settings file that the runner writes for all its children.

In: the user's settings file and the environment, and what the runner decided (addresses, model
folder, cores). Out: a TOML document with the common keys on top and a table per service. What the
user set wins; what the user did not set, the runner fills in.

The environment's ``TAILRACE_*`` are folded in here and kept from the children, so the file says
all. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
from typing import Any

from tailrace import settings
from tailrace.errors import SettingsError
from tailrace.settings import SERVICES, Common

Document = dict[str, Any]


def read(file: Path | None, environment: Mapping[str, str]) -> Document:
    """What the user set, by file and environment. Raises SettingsError.

    Values are not checked here: each service refuses its own wrong ones by name.
    """
    if file is None and "TAILRACE_SETTINGS" in environment:
        file = Path(environment["TAILRACE_SETTINGS"])
    document: Document = {} if file is None else settings.read(file)
    set_here: Document = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith("TAILRACE_") or variable == "TAILRACE_SETTINGS":
            continue
        key = variable.removeprefix("TAILRACE_").lower()
        owner, _, own_key = key.partition("_")
        if key in Common.__struct_fields__:
            set_here[key] = value
        elif owner in SERVICES:
            set_here.setdefault(owner, {})[own_key] = value
        else:
            raise SettingsError(f"{variable}: unknown key {key!r}")
    # The children are not run where the user is.
    return merge(document, settings.anchored(set_here, Path.cwd()))


def merge(decided: Document, user: Document) -> Document:
    """``decided`` with the user's values over it, table by table.

    >>> merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}})
    {'a': 1, 't': {'x': 1, 'y': 3}}
    """
    merged = dict(decided)
    for key, value in user.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            merged[key] = merge(under, value)
        else:
            merged[key] = value
    return merged


def dump(document: Document) -> str:
    """The document as TOML. Keys whose value is None are left out.

    Tables, strings, numbers, booleans, paths, dates and lists of these; tables within lists too.
    """
    lines: list[str] = []
    _table(document, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def write(document: Document, file: Path) -> None:
    """Write it atomically, readable by its owner alone: it holds tokens."""
    part = file.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(dump(document))
    os.replace(part, file)


def _table(table: Document, path: tuple[str, ...], lines: list[str]) -> None:
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, dict)}
    tables = {k: v for k, v in table.items() if isinstance(v, dict)}
    if path and (plain or not tables):
        lines += ["", "[" + ".".join(_key(part) for part in path) + "]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in tables.items():
        _table(value, (*path, key), lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _string(str(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return str(value.isoformat())


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _string(text)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped, and surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
