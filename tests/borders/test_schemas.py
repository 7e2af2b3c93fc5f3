"""The contracts: code and newest file agree, versions read each other, old bytes still decode."""

from __future__ import annotations

from collections.abc import Iterator
import io
from itertools import permutations

import fastavro
import msgspec
import pytest

from tailrace import events, schemas
from tailrace.wire import Wire
from tests.golden import samples

NAMES = [record.__name__ for record in events.RECORDS]
VERSIONS = [(name, version) for name in NAMES for version in schemas.load(name)]
PAIRS = [(n, a, b) for n in NAMES for a, b in permutations(schemas.load(n), 2)]
UNITS = ("string", "long", "double", "boolean", "bytes")
WITHOUT_DEFAULT = ("_id", "_ms")
"""Only ids and times lack a default; the two names below are ids by another name."""
IDS = ("engine", "stream")


@pytest.mark.parametrize("record", events.RECORDS)
def test_the_newest_file_is_what_the_class_says(record):
    versions = schemas.load(record.__name__)
    assert list(versions) == list(range(1, len(versions) + 1))
    assert schemas.newest(record.__name__) == schemas.derive(record), (
        "run python -m tailrace.schemas, then python -m tests.golden.samples"
    )


def test_every_file_belongs_to_a_record():
    known = {f"{schemas._slug(name)}.v{version}.avsc" for name, version in VERSIONS}
    assert {file.name for file in schemas.FOLDER.iterdir()} == known


def fields(schema) -> Iterator[tuple[str, dict]]:
    """Every field of a schema, nested records too, with the name of its record."""
    if isinstance(schema, list):
        for branch in schema:
            yield from fields(branch)
    elif isinstance(schema, dict) and schema["type"] == "record":
        for field in schema["fields"]:
            yield schema["name"], field
            yield from fields(field["type"])
    elif isinstance(schema, dict):
        yield from fields(schema.get("items", schema.get("values")))


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_the_house_rules(name, version):
    schema = schemas.load(name)[version]
    assert (schema["name"], schema["namespace"]) == (name, "tailrace")
    for owner, field in fields(schema):
        here = f"{owner}.{field['name']}"
        kind = field["type"]
        if isinstance(kind, list):
            assert len(kind) == 2 and kind[0] == "null", here
            assert "default" in field and field["default"] is None, here
            kind = kind[1]
        if "default" not in field:
            assert field["name"].endswith(WITHOUT_DEFAULT) or field["name"] in IDS, here
        if isinstance(kind, dict):
            assert kind["type"] in ("record", "array", "map"), here
        else:
            assert kind in UNITS or kind.startswith("tailrace."), here
        assert "aliases" not in field and "order" not in field, here


def test_one_name_is_one_type_everywhere():
    """No named type moves, or means two things."""
    found: dict[str, object] = {}

    def walk(schema) -> None:
        if isinstance(schema, list):
            for branch in schema:
                walk(branch)
        elif isinstance(schema, dict):
            if schema["type"] == "record":
                assert found.setdefault(schema["name"], schema["fields"]) == schema["fields"]
                for field in schema["fields"]:
                    walk(field["type"])
            walk(schema.get("items") or schema.get("values"))

    for name in NAMES:
        walk(schemas.newest(name))
    assert len(found) > len(NAMES)


def shape(schema) -> dict[str, object]:
    """Each field by its path, with what must never change: its type and nullability."""
    out: dict[str, object] = {}

    def walk(path: str, kind) -> object:
        if isinstance(kind, list):
            return ["null", walk(path, kind[1])]
        if isinstance(kind, dict) and kind["type"] == "record":
            for field in kind["fields"]:
                here = f"{path}.{field['name']}"
                out[here] = (walk(here, field["type"]), field.get("default", "none"))
            return kind["name"]
        if isinstance(kind, dict):
            # What is in it is compared field by field, as everywhere: a record in it may grow too.
            return kind["type"], walk(path, kind.get("items") or kind.get("values"))
        return kind

    walk("", schema)
    return out


def breaks(one_schema, other_schema) -> list[str]:
    """What keeps either from reading the other; empty where both can (FULL)."""
    one, other = shape(one_schema), shape(other_schema)
    changed = [path for path in one.keys() & other.keys() if one[path] != other[path]]
    required = [path for path in one.keys() ^ other.keys() if (one | other)[path][1] == "none"]
    return sorted(changed + required)


def test_no_version_breaks_another():
    for name, one, other in PAIRS:
        assert not breaks(schemas.load(name)[one], schemas.load(name)[other]), (name, one, other)


def test_every_version_reads_every_other():
    for name, writer, reader in PAIRS:
        written, wanted = schemas.load(name)[writer], schemas.load(name)[reader]
        example = plain(samples.SAMPLES[name, writer], written)
        got = read(written, wanted, example)
        assert common(got, example) == common(example, got), (name, writer, reader)


def common(value, other):
    """What of ``value`` is in a record that may lack some of its fields, nested ones too."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {k: common(value[k], other[k]) for k in value.keys() & other.keys()}
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return [common(one, two) for one, two in zip(value, other, strict=True)]
    return value


def plain(sample: events.Struct, schema) -> dict:
    """A sample as plain values, cut to the fields of a schema."""
    known = {field["name"] for field in schema["fields"]}
    whole = msgspec.to_builtins(sample, builtin_types=(bytes,))
    return {key: value for key, value in whole.items() if key in known}


def read(written, wanted, example: dict) -> dict:
    out = io.BytesIO()
    writer = fastavro.parse_schema(written)
    fastavro.schemaless_writer(out, writer, example)
    out.seek(0)
    return fastavro.schemaless_reader(out, writer, fastavro.parse_schema(wanted))


ADDED = {"name": "later", "type": ["null", "string"], "default": None}
CHANGES = {
    "a field with a default comes": (lambda fs: [*fs, ADDED], []),
    "a field with a default goes": (lambda fs: [f for f in fs if f["name"] != "seen"], []),
    "a field without one comes": (lambda fs: [*fs, {"name": "x", "type": "long"}], [".x"]),
    "an id goes": (lambda fs: fs[1:], [".stream"]),
    "a field may be null no more": (
        lambda fs: [
            f | {"type": "double", "default": 0.0} if f["name"] == "value" else f for f in fs
        ],
        [".value"],
    ),
    "a number is promoted": (
        lambda fs: [f | {"type": "double"} if f["name"] == "event_time_ms" else f for f in fs],
        [".event_time_ms"],
    ),
    "a default changes": (
        lambda fs: [f | {"default": "cleared"} if f["name"] == "state" else f for f in fs],
        [".state"],
    ),
    "a field is renamed": (
        lambda fs: [f | {"name": "flow"} if f["name"] == "stream" else f for f in fs],
        [".flow", ".stream"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_rule_tells_a_break_from_an_extension(change):
    """While there is one version of everything: the rule itself, on made-up second ones."""
    alter, expected = CHANGES[change]
    first = schemas.load("Alarm")[1]
    second = first | {"fields": alter(first["fields"])}
    assert breaks(first, second) == breaks(second, first) == expected
    if not expected:
        example = plain(samples.SAMPLES["Alarm", 1], first)
        common = example.keys() - {"seen"}
        got = read(first, second, example)
        assert {k: got[k] for k in common} == {k: example[k] for k in common}
        back = read(second, first, {k: example[k] for k in common})
        assert {k: back[k] for k in common} == {k: example[k] for k in common}


def test_every_version_has_its_golden_bytes():
    assert {*samples.SAMPLES} == {*VERSIONS}
    known = {samples.file_of(*version).name for version in VERSIONS}
    assert {file.name for file in samples.FOLDER.glob("*.bin")} == known


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_golden_bytes_decode_to_what_they_were(name, version):
    value = samples.file_of(name, version).read_bytes()
    assert value[2:10] == schemas.fingerprint(schemas.load(name)[version])
    sample = samples.SAMPLES[name, version]
    assert Wire().decode(type(sample), value) == sample


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_a_sample_leaves_no_field_at_its_default(name, version):
    """So that the golden bytes hold something of every field."""
    sample = samples.SAMPLES[name, version]
    known = {field["name"] for field in schemas.load(name)[version]["fields"]}
    for field in msgspec.structs.fields(type(sample)):
        if field.name not in known:
            continue
        if field.default is not msgspec.NODEFAULT:
            assert getattr(sample, field.name) != field.default, field.name
        elif field.default_factory is not msgspec.NODEFAULT:
            assert getattr(sample, field.name), field.name
