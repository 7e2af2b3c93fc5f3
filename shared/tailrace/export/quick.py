"""Trajectories of the newest schema, decoded several times as fast as by a general decoder.

From the Avro schema straight Python is written that reads one field after the other and makes the
struct; the library's own decoder (:mod:`tailrace.wire`) walks the schema for each record. Whatever
this cannot read (another schema, JSON, broken bytes) it leaves to that decoder, which says what is
wrong. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
import struct
from typing import Any

from tailrace import events, schemas
from tailrace.wire import MARKER

Read = Callable[[bytes, int], tuple[Any, int]]
_PRIMITIVES = ("string", "bytes", "long", "double", "boolean")


class Quick:
    """Decodes records of one class. Safe to share between threads."""

    def __init__(self, kind: type[events.Struct]) -> None:
        schema = schemas.newest(kind.__name__)
        self._mark = MARKER + schemas.fingerprint(schema)
        self._read = _compiled(schema)

    def __call__(self, value: bytes | None) -> Any | None:
        """The record; None: not this way."""
        if value is None or value[:10] != self._mark:
            return None
        try:
            record, end = self._read(value, 10)
        except (ValueError, IndexError, struct.error):  # cut short, or no UTF-8
            return None
        return record if end == len(value) else None


def _compiled(schema: Any) -> Read:
    """``read(b, i)``: the record at an offset, and the offset after it."""
    lines = ["def read(b, i):", " size = len(b)"]
    _Writer(lines).value(schema, "made", " ")
    lines.append(" return made, i")
    names: dict[str, Any] = {"more": _more, "double": struct.Struct("<d").unpack_from}
    names |= {name: getattr(events, name) for name in events.__all__}
    exec("\n".join(lines), names)  # of our own schema files, nothing of the log is in it
    read: Read = names["read"]
    return read


def _more(b: bytes, i: int, n: int) -> tuple[int, int]:
    """The rest of a long of several bytes, of which ``n`` is the first."""
    n &= 127
    shift = 7
    while True:
        byte = b[i]
        i += 1
        n |= (byte & 127) << shift
        if byte < 128:
            return n, i
        shift += 7
        if shift > 63:
            raise ValueError("no long")


class _Writer:
    """Writes lines that read one value after the other."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._numbers = count()
        self._named: dict[str, Any] = {}

    def value(self, schema: Any, into: str, pad: str) -> None:
        """Read a value of a schema into a variable."""
        if isinstance(schema, dict) and schema["type"] in _PRIMITIVES:
            schema = schema["type"]
        if isinstance(schema, list):
            assert schema[0] == "null" and len(schema) == 2, "a union is null and one type"
            self._say(pad, f"if b[i] == 0: {into} = None; i += 1")
            self._say(pad, "elif b[i] == 2:")
            self._say(pad, " i += 1")
            self.value(schema[1], into, pad + " ")
            self._say(pad, "else: raise ValueError")
        elif isinstance(schema, str) and schema not in _PRIMITIVES:
            self.value(self._named[schema.rpartition(".")[2]], into, pad)
        elif isinstance(schema, str):
            self._primitive(schema, into, pad)
        elif schema["type"] == "record":
            self._record(schema, into, pad)
        else:
            self._blocks(schema, into, pad)

    def _record(self, schema: Any, into: str, pad: str) -> None:
        name = schema["name"].rpartition(".")[2]
        self._named[name] = schema
        given = []
        for field in schema["fields"]:
            each = f"v{next(self._numbers)}"
            self.value(field["type"], each, pad)
            given.append(f"{field['name']}={each}")
        self._say(pad, f"{into} = {name}({', '.join(given)})")

    def _blocks(self, schema: Any, into: str, pad: str) -> None:
        left, each, key = (f"{what}{next(self._numbers)}" for what in ("left", "each", "key"))
        is_map = schema["type"] == "map"
        self._say(pad, f"{into} = {'{}' if is_map else '[]'}")
        self._say(pad, "while True:")
        self._primitive("long", left, pad + " ")
        self._say(pad, f" if {left} == 0: break")
        self._say(pad, f" if {left} < 0:")
        self._primitive("long", each, pad + "  ")  # the block's size in bytes: not needed
        self._say(pad, f"  {left} = -{left}")
        self._say(pad, f" for _ in range({left}):")
        if is_map:
            self._primitive("string", key, pad + "  ")
        self.value(schema["values" if is_map else "items"], each, pad + "  ")
        self._say(pad, f"  {into}[{key}] = {each}" if is_map else f"  {into}.append({each})")

    def _primitive(self, kind: str, into: str, pad: str) -> None:
        if kind == "double":
            self._say(pad, f"{into} = double(b, i)[0]; i += 8")
        elif kind == "boolean":
            self._say(pad, f"{into} = b[i] == 1")
            self._say(pad, "if b[i] > 1: raise ValueError")
            self._say(pad, "i += 1")
        else:
            number = into if kind == "long" else "n"
            self._say(pad, f"{number} = b[i]; i += 1")
            self._say(pad, f"if {number} > 127: {number}, i = more(b, i, {number})")
            self._say(pad, f"{number} = ({number} >> 1) ^ -({number} & 1)")
        if kind in ("string", "bytes"):
            self._say(pad, "j = i + n")
            self._say(pad, "if n < 0 or j > size: raise ValueError")
            self._say(pad, f"{into} = b[i:j]{'.decode()' if kind == 'string' else ''}; i = j")

    def _say(self, pad: str, line: str) -> None:
        self._lines.append(pad + line)
