"""tailrace.wire: what is written is read, and nothing else is."""

from __future__ import annotations

import io
import json
import math

import fastavro
from hypothesis import given
from hypothesis import strategies as st
import msgspec
import pytest

from tailrace import events, schemas
from tailrace.errors import InvalidRecord, UnknownSchema
from tailrace.wire import MARKER, Wire

LONGS = st.integers(-(2**63), 2**63 - 1)
WIRE = Wire()
OUTPUT = events.Output(interaction_id="default:s~01HF7YAT00000", event_time_ms=1)


def values(hint: msgspec.inspect.Type) -> st.SearchStrategy:
    """Any value of a field, within what Avro's long and double hold."""
    match hint:
        case msgspec.inspect.IntType():
            return LONGS
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False)
        case msgspec.inspect.StrType():
            return st.text(st.characters(codec="utf-8"), max_size=20)
        case msgspec.inspect.BytesType():
            return st.binary(max_size=20)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType():
            return st.one_of(*map(values, hint.types))
        case msgspec.inspect.ListType():
            return st.lists(values(hint.item_type), max_size=3)
        case msgspec.inspect.DictType():
            return st.dictionaries(values(hint.key_type), values(hint.value_type), max_size=3)
        case msgspec.inspect.StructType():
            return records(hint.cls)
    raise AssertionError(hint)


def records(kind: type[events.Struct]) -> st.SearchStrategy:
    fields = msgspec.inspect.type_info(kind).fields
    return st.builds(kind, **{field.name: values(field.type) for field in fields})


@given(st.sampled_from(events.RECORDS).flatmap(records))
def test_every_record_comes_back(record):
    assert WIRE.decode(type(record), WIRE.encode(record)) == record


@pytest.mark.parametrize("kind", events.RECORDS)
def test_the_preamble_is_the_marker_and_the_fingerprint_of_the_newest_schema(kind):
    fields = msgspec.inspect.type_info(kind).fields
    texts = {f.name for f in fields if isinstance(f.type, msgspec.inspect.StrType)}
    record = kind(**{f.name: "x" if f.name in texts else 0 for f in fields if f.required})
    newest = schemas.newest(kind.__name__)
    assert WIRE.encode(record)[:10] == MARKER + schemas.fingerprint(newest)


def test_the_fingerprint_is_the_specifications():
    """The empty fingerprint seed and a vector of the Avro specification's own tests."""
    assert schemas.fingerprint("int").hex() == (0x7275D51A3F395C8F).to_bytes(8, "little").hex()
    assert schemas.fingerprint("null").hex() == (0x63DD24E7CC258F8A).to_bytes(8, "little").hex()


@pytest.mark.parametrize(
    "record",
    [
        msgspec.structs.replace(OUTPUT, event_time_ms=2**63),
        msgspec.structs.replace(OUTPUT, event_time_ms="soon"),
        msgspec.structs.replace(OUTPUT, event_time_ms=None),
        msgspec.structs.replace(OUTPUT, interaction_id=5),
        msgspec.structs.replace(OUTPUT, choice=1.5),
        msgspec.structs.replace(OUTPUT, choice=True),
        msgspec.structs.replace(OUTPUT, ttft_ms="slow"),
        msgspec.structs.replace(OUTPUT, error=7),
        msgspec.structs.replace(OUTPUT, finish_reason=b"stop"),
        msgspec.structs.replace(OUTPUT, finish_reason="\ud800"),
        msgspec.structs.replace(OUTPUT, weight_versions=[1]),
        msgspec.structs.replace(OUTPUT, content=events.OutputContent(token_ids="abc")),
    ],
)
def test_a_value_of_another_type_is_not_written(record):
    with pytest.raises(InvalidRecord) as refused:
        WIRE.encode(record)
    assert refused.value.reason == "unencodable"


def test_a_double_may_be_given_as_an_integer():
    record = WIRE.decode(events.Output, WIRE.encode(msgspec.structs.replace(OUTPUT, ttft_ms=3)))
    assert record.ttft_ms == 3.0
    assert isinstance(record.ttft_ms, float)


def test_nan_and_infinity_travel():
    """The wire is not the judge of numbers; rewards is."""
    for number in (math.nan, math.inf, -math.inf):
        record = events.Feedback(feedback_id="default:s!1", event_time_ms=1, number=number)
        assert str(WIRE.decode(events.Feedback, WIRE.encode(record)).number) == str(number)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "not_avro"),
        (b"{}", "not_avro"),
        (MARKER, "not_avro"),
        (b"\x00\x00\x00\x00\x07rest", "not_avro"),
        (WIRE.encode(OUTPUT) + b"x", "undecodable"),
        (WIRE.encode(OUTPUT)[:-1], "undecodable"),
        (WIRE.encode(OUTPUT)[:10], "undecodable"),
        (WIRE.encode(events.Alarm(stream="s", event_time_ms=1)), "wrong_record"),
    ],
)
def test_what_is_no_such_record_is_refused(value, reason):
    with pytest.raises(InvalidRecord) as refused:
        WIRE.decode(events.Output, value)
    assert refused.value.reason == reason
    assert not isinstance(refused.value, UnknownSchema)


@given(st.binary(max_size=60), st.sampled_from(events.RECORDS))
def test_no_bytes_do_harm(body, kind):
    """Any body behind a good preamble is a record or InvalidRecord, in no time and no memory."""
    preamble = MARKER + schemas.fingerprint(schemas.newest(kind.__name__))
    try:
        WIRE.decode(kind, preamble + body)
    except InvalidRecord as error:
        assert error.reason == "undecodable"


@given(st.data())
def test_a_flipped_bit_is_a_record_or_refused(data):
    value = bytearray(WIRE.encode(data.draw(records(events.Output))))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        WIRE.decode(events.Output, bytes(value))
    except InvalidRecord:
        pass


def test_an_unknown_fingerprint_is_told_apart_and_can_be_learnt():
    schema = schemas.derive(events.Alarm)
    schema["fields"].append({"name": "added_later", "type": ["null", "string"], "default": None})
    body = WIRE.encode(events.Alarm(stream="s", event_time_ms=1))[10:] + b"\x02\x02x"
    value = MARKER + schemas.fingerprint(schema) + body
    wire = Wire()
    with pytest.raises(UnknownSchema) as unknown:
        wire.decode(events.Alarm, value)
    assert unknown.value.fingerprint == value[2:10].hex()
    assert wire.learn(json.dumps(schema).encode()) == value[2:10]
    assert wire.decode(events.Alarm, value) == events.Alarm(stream="s", event_time_ms=1)


def test_a_record_of_an_older_writer_gets_the_defaults():
    """A writer that knew only the fields without a default."""
    schema = schemas.derive(events.Output)
    schema["fields"] = [f for f in schema["fields"] if "default" not in f]
    wire = Wire()
    mark = wire.learn(json.dumps(schema).encode())
    body = b"\x02i\x02"
    assert wire.decode(events.Output, MARKER + mark + body) == events.Output(
        interaction_id="i", event_time_ms=1
    )


@pytest.mark.parametrize(
    "schema",
    [
        *(b"", b"{", b'{"type": "recrd"}', b"[]5", b"\xff", b"null", b"7"),
        *(b"[" * 100_000, b'"string"', b'["null", "string"]'),
        b'{"type": "fixed", "name": "F", "size": 2}',
        b'{"type": "record", "name": 5, "fields": [], "__fastavro_parsed_schema": true}',
    ],
)
def test_what_is_no_schema_of_a_record_is_not_learnt(schema):
    with pytest.raises(InvalidRecord) as refused:
        Wire().learn(schema)
    assert refused.value.reason == "schema"


def test_a_known_fingerprint_keeps_its_schema():
    """Java writers have logical types, which the fingerprint does not see."""
    event = events.Alarm(stream="s", event_time_ms=5)
    schema = schemas.derive(events.Alarm)
    for field in schema["fields"]:
        if field["name"] == "event_time_ms":
            field["type"] = {"type": "long", "logicalType": "timestamp-millis"}
    wire = Wire()
    assert wire.learn(json.dumps(schema).encode()) == wire.encode(event)[2:10]
    assert wire.decode(events.Alarm, wire.encode(event)) == event


def test_the_encoding_is_what_any_avro_library_writes():
    record = events.Alarm(stream="reward", event_time_ms=5, value=0.5, seen=3)
    out = io.BytesIO()
    schema = fastavro.parse_schema(schemas.newest("Alarm"))
    fastavro.schemaless_writer(out, schema, msgspec.to_builtins(record))
    assert WIRE.encode(record)[10:] == out.getvalue()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_a_sampling_parameter_that_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        events.parameter({"temperature": text}, "temperature", 1.0)
