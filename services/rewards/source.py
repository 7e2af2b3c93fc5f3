"""A TOML text whose errors point at the line. Used by the spec's reader."""

from __future__ import annotations

import math
import re
import tomllib
from typing import Any, TypeVar

import msgspec

from tailrace.errors import SettingsError

T = TypeVar("T")


class Source:
    """The text, what it says, and where. Raises SettingsError for what is no TOML."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name
        try:
            self.document: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{name}: {error}") from None

    def tables(self, family: str, kind: type[T]) -> dict[str, T]:
        """Take ``[family.<name>]`` tables out of the document, by name."""
        given = self.document.pop(family, {})
        if not isinstance(given, dict):
            raise self.error(family, "a table of tables")
        for key in given:
            if not key:
                raise self.error(f"{family}.{key}", "a name is empty")
        return {key: self.convert(table, kind, f"{family}.{key}") for key, table in given.items()}

    def convert(self, value: Any, kind: type[T], path: str) -> T:
        """A value as a struct. Raises SettingsError naming the file, the line and the key."""
        if isinstance(value, dict):
            for key in value:
                if key not in kind.__struct_fields__:  # type: ignore[attr-defined]
                    raise self.error(f"{path}.{key}".lstrip("."), "unknown key")
            for key, part in value.items():
                if not _finite(part):
                    raise self.error(f"{path}.{key}".lstrip("."), "must be finite")
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            inner = where.rstrip("`").partition("[")[0]
            raise self.error(f"{path}{inner}".lstrip("."), message) from None

    def error(self, path: str, message: str) -> SettingsError:
        """An error about a key."""
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


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
