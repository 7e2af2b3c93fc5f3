"""tailrace.stream on the log in memory: keys, headers, dead letters, schemas, fixed ranges."""

from __future__ import annotations

import json

import pytest

from tailrace import events, ids, schemas, topics
from tailrace.errors import InvalidRecord, LogError, UnknownSchema
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryLog
from tailrace.partition import partition_of
from tailrace.stream import Decoder, Writer, dead_letter, key_of, publish_schemas, read_all
from tailrace.wire import MARKER, Wire

SESSION = "acme:chat"
TURN = ids.new_interaction(SESSION, 1_700_000_000_000)
TRAJECTORY = events.Trajectory(trajectory_id="t", interaction_id=TURN, event_time_ms=1)

KEYED = [
    (
        topics.PROMPTS,
        events.Prompt(interaction_id=TURN, session_id=SESSION, event_time_ms=1),
        SESSION,
    ),
    (topics.OUTPUTS, events.Output(interaction_id=TURN, event_time_ms=1), SESSION),
    (
        topics.FEEDBACK,
        events.Feedback(feedback_id=f"{TURN}!f", interaction_id=TURN, event_time_ms=1),
        SESSION,
    ),
    (
        topics.FEEDBACK,
        events.Feedback(feedback_id=f"{SESSION}!f", session_id=SESSION, event_time_ms=1),
        SESSION,
    ),
    (topics.TRAJECTORIES, TRAJECTORY, SESSION),
    (topics.RECEIPTS, events.Receipt(subject_id=f"{TURN}!f", event_time_ms=1), SESSION),
    (topics.STEPS, events.Step(model="m", event_time_ms=1), "m"),
    (topics.MODEL_UPDATES, events.ModelUpdate(model="m", created_ms=1), "m"),
    (topics.MODEL_ACKS, events.ModelAck(engine="e", event_time_ms=1), "e"),
    (topics.RELEASES, events.Release(model="m", event_time_ms=1), "m"),
    (topics.ALARMS, events.Alarm(stream="s", event_time_ms=1), "s"),
    (topics.CONTROL, events.Command(model="m", event_time_ms=1), "m"),
    (topics.TICKS, events.Tick(partition=3, event_time_ms=1), "3"),
]


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog(clock_ms=iter(range(1000, 10**9)).__next__)
    made.create(topics.TOPICS, prefix="p.", session_partitions=4)
    return made


def records(log, topic):
    return list(read_all(log, topics.named(topic, "p.")))


def test_every_record_of_the_table_is_tried_here():
    assert {topic for topic, _, _ in KEYED} == {t for t in topics.TOPICS if t.record}


@pytest.mark.parametrize(("topic", "event", "key"), KEYED)
def test_a_written_record_has_its_key_its_headers_and_comes_back(log, topic, event, key):
    assert key_of(event) == key
    wire = Wire()
    writer = Writer(log.producer(), wire, prefix="p.", source="gateway")
    position = writer.write(topic, event, traceparent="00-1-2-03").result(1)
    (record,) = records(log, topic)
    assert record.key == key.encode()
    count = log.partitions(record.topic)
    assert position.partition == record.partition == partition_of(record.key, count)
    assert record.headers["ce_specversion"] == b"1.0"
    assert record.headers["ce_type"] == f"tailrace.{type(event).__name__}".encode()
    assert record.headers["ce_source"] == b"/tailrace/gateway"
    assert record.headers["ce_id"]
    assert record.headers["content-type"] == b"application/avro"
    assert record.headers["traceparent"] == b"00-1-2-03"
    assert Decoder(log, wire, prefix="p.").decode(record) == event


def test_a_trainers_receipt_is_keyed_by_hand(log):
    receipt = events.Receipt(subject_id="a-trajectory", event_time_ms=1, stage="trainer")
    writer = Writer(log.producer(), Wire(), prefix="p.")
    with pytest.raises(InvalidRecord):
        writer.write(topics.RECEIPTS, receipt)
    writer.write(topics.RECEIPTS, receipt, key=SESSION)
    assert records(log, topics.RECEIPTS)[0].key == SESSION.encode()


def test_detectors_that_fire_on_one_record_send_two_events(log):
    writer = Writer(log.producer(), Wire(), prefix="p.")
    for detector, state in (("adwin", "fired"), ("kswin", "fired"), ("adwin", "cleared")):
        alarm = events.Alarm(stream="s", event_time_ms=1, detector=detector, state=state)
        writer.write(topics.ALARMS, alarm)
    assert len({record.headers["ce_id"] for record in records(log, topics.ALARMS)}) == 3


def test_a_record_can_be_put_where_it_is_told(log):
    writer = Writer(log.producer(), Wire(), prefix="p.")
    tick = events.Tick(partition=2, event_time_ms=1)
    assert writer.write(topics.TICKS, tick, partition=2).result(1).partition == 2


def test_what_cannot_be_encoded_or_is_too_large_is_not_written(log):
    writer = Writer(log.producer(), Wire(), prefix="p.")
    with pytest.raises(InvalidRecord):
        writer.write(topics.ALARMS, events.Alarm(stream="s", event_time_ms="late"))
    content = events.OutputContent(message="x" * (9 << 20))
    large = events.Output(interaction_id=TURN, event_time_ms=1, content=content)
    with pytest.raises(LogError):
        writer.write(topics.OUTPUTS, large)
    assert records(log, topics.ALARMS) == records(log, topics.OUTPUTS) == []


def test_a_dead_letter_is_the_record_as_it_came(log):
    producer = log.producer()
    headers = {"ce_id": b"7", "content-type": b"text/plain"}
    producer.append("p.feedback", b"\xff", key=b"k", partition=1, headers=headers)
    (bad,) = records(log, topics.FEEDBACK)
    Writer(producer, Wire(), prefix="p.").bury(bad, "not_avro", "ü" * 1000).result(1)
    (letter,) = records(log, topics.DEAD_LETTERS)
    assert (letter.key, letter.value) == (b"k", b"\xff")
    assert letter.headers["ce_id"] == b"7"
    assert letter.headers["tailrace-reason"] == b"not_avro"
    assert letter.headers["tailrace-source"] == b"p.feedback/1/0"
    assert letter.headers["tailrace-time-ms"] == str(bad.time_ms).encode()
    assert len(letter.headers["tailrace-detail"]) <= 2000


@pytest.mark.parametrize("header_bytes", [0, 1 << 10, 7 << 20])
def test_a_dead_letter_fits_a_record_whatever_it_was(header_bytes):
    """Else a record of just the largest size would end everyone who meets it, again and again."""
    bad = LogRecord(
        topic="p.feedback",
        partition=0,
        offset=7,
        time_ms=1,
        key=b"k" * 100,
        value=b"\xff" * (topics.MAX_RECORD_BYTES - header_bytes - 200),
        headers={"h": b"x" * header_bytes},
    )
    value, headers = dead_letter(bad, "not_avro", "ü" * 1000)
    size_bytes = len(value) + sum(len(k) + len(v) for k, v in headers.items())
    assert size_bytes < topics.MAX_RECORD_BYTES - 50_000
    assert headers["tailrace-truncated"] == str(len(bad.value)).encode()
    assert headers["tailrace-source"] == b"p.feedback/0/7"
    assert value == bad.value[: len(value)] and len(value) > (1 << 20) - 300


def newer_alarm(value: bytes = b"\x02\x02x") -> tuple[dict, bytes]:
    """An alarm by a writer of tomorrow: one more field."""
    schema = schemas.derive(events.Alarm)
    schema["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    body = Wire().encode(events.Alarm(stream="s", event_time_ms=1))[10:]
    return schema, MARKER + schemas.fingerprint(schema) + body + value


def test_an_unknown_fingerprint_is_looked_up_on_the_schemas_topic(log):
    schema, value = newer_alarm()
    producer = log.producer()
    producer.append("p.alarms", value, key=b"s")
    (record,) = records(log, topics.ALARMS)
    decoder = Decoder(log, Wire(), prefix="p.")
    with pytest.raises(UnknownSchema):
        decoder.decode(record)
    mark = schemas.fingerprint(schema).hex().encode()
    producer.append("p.schemas", json.dumps(schema).encode(), key=mark)
    assert decoder.decode(record) == events.Alarm(stream="s", event_time_ms=1)


def test_rubbish_on_the_schemas_topic_is_passed_over(log):
    schema, value = newer_alarm()
    producer = log.producer()
    for rubbish in (b"no schema", None, b'{"type": "recrd"}'):
        producer.append("p.schemas", rubbish, key=b"x")
    producer.append("p.schemas", json.dumps(schema).encode(), key=b"right")
    producer.append("p.alarms", value, key=b"s")
    (record,) = records(log, topics.ALARMS)
    assert Decoder(log, Wire(), prefix="p.").decode(record).stream == "s"


def test_schemas_are_published_once(log):
    publish_schemas(log, prefix="p.")
    publish_schemas(log, prefix="p.")
    published = records(log, topics.SCHEMAS)
    assert len(published) == len(events.RECORDS)
    wire = Wire()
    for record in published:
        assert wire.learn(record.value).hex().encode() == record.key


def test_read_all_reads_a_fixed_range(log):
    producer = log.producer()
    for number in range(6):
        producer.append("p.alarms", b"%d" % number)
    log.delete_before("p.alarms", {0: 1})

    def values(**options):
        return [int(r.value) for r in read_all(log, "p.alarms", **options)]

    assert values() == [1, 2, 3, 4, 5]
    assert values(starts={0: 3}) == [3, 4, 5]
    assert values(starts={0: 0}, ends={0: 3}) == [1, 2]
    assert values(starts={0: 6}) == values(ends={0: 0}) == values(ends={}) == []


def test_read_all_does_not_wait_for_what_comes_later(log):
    producer = log.producer()
    producer.append("p.alarms", b"0")
    reading = read_all(log, "p.alarms")
    assert next(reading).value == b"0"
    producer.append("p.alarms", b"1")
    assert list(reading) == []
