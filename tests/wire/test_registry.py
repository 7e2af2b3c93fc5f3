"""tailrace.wire with a Confluent schema registry (the client's own stand-in for one)."""

from __future__ import annotations

from confluent_kafka.schema_registry import Schema
import pytest

from tailrace import events
from tailrace.errors import InvalidRecord, LogError, UnknownSchema
from tailrace.wire import Wire

ALARM = events.Alarm(stream="reward", event_time_ms=1, value=0.5)


def test_records_travel_in_confluents_format():
    wire = Wire("mock://registry")
    value = wire.encode(ALARM)
    assert value[:1] == b"\x00"
    assert value[5:] == Wire().encode(ALARM)[10:]
    assert wire.decode(events.Alarm, value) == ALARM


def test_single_object_records_are_still_read():
    """Logs written before a registry came stay readable."""
    assert Wire("mock://registry").decode(events.Alarm, Wire().encode(ALARM)) == ALARM


def test_an_unknown_number_may_become_known():
    with pytest.raises(UnknownSchema):
        Wire("mock://registry").decode(events.Alarm, b"\x00\x00\x00\xff\xffrest")


@pytest.mark.parametrize(
    ("text", "kind"), [('"string"', "AVRO"), ('{"type": "object"}', "JSON"), ("[", "AVRO")]
)
def test_a_number_of_something_else_is_refused(text, kind):
    wire = Wire("mock://registry")  # the stand-in is its client's own
    number = wire._registry._client.register_schema("elsewhere", Schema(text, kind))
    with pytest.raises(InvalidRecord) as refused:
        wire.decode(events.Alarm, b"\x00" + number.to_bytes(4, "big") + b"rest")
    assert refused.value.reason == "schema"


def test_a_registry_that_is_away_says_nothing_about_a_record(monkeypatch):
    wire = Wire("mock://registry")

    def away(*_):
        raise ConnectionError("refused")

    monkeypatch.setattr(wire._registry._client, "get_schema", away)
    monkeypatch.setattr(wire._registry._client, "register_schema", away)
    with pytest.raises(LogError):
        wire.decode(events.Alarm, b"\x00\x00\x00\xff\xffrest")
    with pytest.raises(LogError):
        wire._registry.register("Alarm", {})


def test_without_a_registry_the_format_is_refused():
    with pytest.raises(InvalidRecord) as refused:
        Wire().decode(events.Alarm, Wire("mock://registry").encode(ALARM))
    assert refused.value.reason == "not_avro"


def test_each_record_has_a_number_of_its_own():
    wire = Wire("mock://registry")
    step = events.Step(model="m", event_time_ms=1)
    assert wire.encode(ALARM)[:5] != wire.encode(step)[:5]
    with pytest.raises(InvalidRecord) as refused:
        wire.decode(events.Alarm, wire.encode(step))
    assert refused.value.reason == "wrong_record"
