"""The Avro contracts: files in ``schemas/``, derived from :mod:`tailrace.events`, kept for ever.

``schemas/<record>.v<N>.avsc`` is version N of a record. The newest one equals :func:`derive` of the
class (by test); older ones stay, so logs written then still decode. After changing a record::

    python -m tailrace.schemas        # writes the next version of each record that changed
"""

from __future__ import annotations

from functools import cache
import json
from pathlib import Path
import types
import typing
from typing import Any

import fastavro
import fastavro.schema
import msgspec

from tailrace import events

NAMESPACE = "tailrace"
_HERE = Path(__file__).parent
FOLDER = _HERE / "schemas" if (_HERE / "schemas").is_dir() else _HERE.parents[1] / "schemas"
"""In the wheel the files lie beside the code, in a checkout in ``schemas/``."""

Schema = dict[str, Any]
_PRIMITIVES: dict[Any, str] = {
    str: "string",
    int: "long",
    float: "double",
    bool: "boolean",
    bytes: "bytes",
}


def derive(record: type[events.Struct]) -> Schema:
    """The Avro schema of a record class. Raises TypeError for a type the house rules exclude."""
    return _record(record, set())


def _record(record: type[msgspec.Struct], seen: set[str]) -> Schema:
    seen.add(record.__name__)
    hints = typing.get_type_hints(record)
    fields = []
    for field in msgspec.structs.fields(record):
        entry: Schema = {"name": field.name, "type": _type(hints[field.name], seen)}
        if not field.required:
            entry["default"] = _default(field)
        fields.append(entry)
    return {"type": "record", "name": record.__name__, "namespace": NAMESPACE, "fields": fields}


def _type(hint: Any, seen: set[str]) -> Any:
    if hint in _PRIMITIVES:
        return _PRIMITIVES[hint]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        known = hint.__name__ in seen
        return f"{NAMESPACE}.{hint.__name__}" if known else _record(hint, seen)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return {"type": "array", "items": _type(arguments[0], seen)}
    if origin is dict and arguments[0] is str:
        return {"type": "map", "values": _type(arguments[1], seen)}
    if origin is types.UnionType and len(arguments) == 2 and arguments[1] is types.NoneType:
        return ["null", _type(arguments[0], seen)]
    raise TypeError(f"{hint!r} has no place in an Avro contract")


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return msgspec.to_builtins(field.default)


@cache
def load(record: str) -> dict[int, Schema]:
    """All versions of one record, by number. Empty when there is none."""
    versions = {}
    for file in FOLDER.glob(f"{_slug(record)}.v*.avsc"):
        versions[int(file.suffixes[-2].removeprefix(".v"))] = json.loads(file.read_text())
    return dict(sorted(versions.items()))


def newest(record: str) -> Schema:
    """The schema that producers write."""
    return load(record)[max(load(record))]


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, little-endian: 8 bytes (Avro specification)."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def _slug(record: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in record).lstrip("-")


def write() -> list[Path]:
    """Write the next version of every record whose class changed; returns the new files."""
    written = []
    for record in events.RECORDS:
        schema, versions = derive(record), load(record.__name__)
        if versions and versions[max(versions)] == schema:
            continue
        file = FOLDER / f"{_slug(record.__name__)}.v{max(versions, default=0) + 1}.avsc"
        file.write_text(json.dumps(schema, indent=2) + "\n")
        written.append(file)
    load.cache_clear()
    return written


if __name__ == "__main__":
    for file in write():
        print(file)
