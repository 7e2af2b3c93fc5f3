"""Feedback from elsewhere: FeedbackProducer, and producers that know only the documented table."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

import tailrace
from tailrace import events, ids, topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.log.memory import MemoryLog
from tailrace.partition import partition_of
from tailrace.stream import publish_schemas
from tailrace.topics import named

TURN = "acme:chat-1~01HF7YAT00000"
OTHER = "acme:chat-1~01HF7YAT11111"


@pytest.fixture
def topic(log, prefix):
    log.create([topics.FEEDBACK, topics.SCHEMAS], prefix=prefix, session_partitions=5)
    return named(topics.FEEDBACK, prefix)


def read(log, prefix):
    return list(tailrace.read("feedback", log=log, prefix=prefix))


def test_what_is_sent_is_on_the_log_in_its_partition(log, prefix, topic):
    with tailrace.FeedbackProducer(log=log, prefix=prefix, source="shop", now_ms=lambda: 7) as out:
        thumb = out.send(TURN, True, choice=1, user="somebody", tags={"page": "home"})
        assert thumb.result(30).startswith(f"{TURN}!")
        out.send("acme:chat-2", 4, metric="stars", feedback_id="mine")
        out.send(TURN, "say so", metric="edit", kind="demonstration")
        out.send(OTHER, preferred_over=ids.answer(TURN, 1), metric="better")
        out.send(TURN, 0.5, metric="polite", source="grader", grader="polite")
        back = out.retract(thumb.result()).result(30)
        assert back == out.retract(thumb.result()).result(30)
    found = {event.feedback_id: (record, event) for record, event in read(log, prefix)}
    record, event = found[thumb.result()]
    assert event == events.Feedback(
        feedback_id=thumb.result(),
        interaction_id=TURN,
        choice=1,
        event_time_ms=7,
        tenant="acme",
        kind="boolean",
        metric="thumbs",
        boolean=True,
        user="somebody",
        tags={"page": "home"},
    )
    assert record.headers["ce_source"] == b"/tailrace/shop"
    for record, event in found.values():
        session = ids.session_of(event.feedback_id)
        assert record.key == session.encode()
        assert record.partition == partition_of(session.encode(), 5)
    assert (found["acme:chat-2!mine"][1].session_id, found["acme:chat-2!mine"][1].number) == (
        "acme:chat-2",
        4.0,
    )
    kinds = [event.kind for _, event in found.values()]
    assert sorted(map(str, kinds)) == sorted(
        ["boolean", "number", "demonstration", "preference", "number", "None"]
    )
    assert (found[back][1].action, found[back][1].replaces) == ("retract", thumb.result())


def test_what_no_record_can_be_made_of_is_refused_at_once(prefix):
    log = MemoryLog()
    log.create([topics.FEEDBACK, topics.SCHEMAS], prefix=prefix)
    with tailrace.FeedbackProducer(log=log, prefix=prefix) as out:
        for subject, said in (
            ("chat-1", {"value": True}),
            (TURN, {}),
            (TURN, {"value": float("nan")}),
            (TURN, {"value": True, "kind": "comment"}),
            (TURN, {"value": True, "feedback_id": "a b"}),
            (TURN, {"preferred_over": "0"}),
        ):
            with pytest.raises(InvalidRecord):
                out.send(subject, **said)
        with pytest.raises(InvalidRecord):
            out.retract(TURN)
    assert read(log, prefix) == []


def test_a_record_that_is_not_taken_is_said_by_its_future(prefix):
    log = MemoryLog()
    log.create([topics.FEEDBACK, topics.SCHEMAS], prefix=prefix)
    out = tailrace.FeedbackProducer(log=log, prefix=prefix)
    appended = out._producer.append

    def failing(*arguments, **options):
        future = type(appended(*arguments, **options))()
        future.set_exception(LogError("the broker went away"))
        return future

    out._producer.append = failing
    with pytest.raises(LogError, match="went away"):
        out.send(TURN, True).result(5)
    out.close()


@pytest.mark.kafka
def test_a_foreign_client_needs_only_the_table(broker, prefix):
    """Another client library, plain JSON, Kafka's partitioner by key; and a CloudEvent."""
    from aiokafka import AIOKafkaProducer

    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(broker.bootstrap)
    log.create([topics.FEEDBACK, topics.SCHEMAS], prefix=prefix, session_partitions=5)
    publish_schemas(log, prefix=prefix)
    topic, said = named(topics.FEEDBACK, prefix), {"metric_name": "thumbs", "value": True}

    async def send():
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        await producer.start()
        try:
            for number in range(20):
                interaction = f"acme:chat-{number}~01HF7YAT00000"
                await producer.send_and_wait(
                    topic,
                    json.dumps(said | {"inference_id": interaction, "feedback_id": "f"}).encode(),
                    key=ids.session_of(interaction).encode(),
                    headers=[("content-type", b"application/json")],
                )
            event = {"specversion": "1.0", "type": "vote", "source": "/shop", "id": "order 7"}
            await producer.send_and_wait(
                topic,
                json.dumps(event | {"subject": TURN, "data": said}).encode(),
                key=b"acme:chat-1",
                headers=[("content-type", b"application/cloudevents+json")],
            )
        finally:
            await producer.stop()

    asyncio.run(send())
    found = read(log, prefix)
    assert len(found) == 21
    for record, event in found:
        assert isinstance(event, events.Feedback) and event.boolean is True
        assert event.event_time_ms == record.time_ms
        assert record.partition == partition_of(ids.session_of(event.feedback_id).encode(), 5)


@pytest.mark.kafka
@pytest.mark.tools
def test_the_documented_kcat_line(broker, prefix):
    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(broker.bootstrap)
    log.create([topics.FEEDBACK, topics.SCHEMAS], prefix=prefix, session_partitions=5)
    publish_schemas(log, prefix=prefix)
    said = {"inference_id": TURN, "feedback_id": "f", "metric_name": "thumbs", "value": True}
    line = ["kcat", "-P", "-b", broker.bootstrap, "-t", named(topics.FEEDBACK, prefix)]
    line += ["-k", "acme:chat-1", "-H", "content-type=application/json"]
    line += ["-X", "topic.partitioner=murmur2_random"]
    subprocess.run(line, input=json.dumps(said).encode(), check=True, timeout=60)
    ((record, event),) = read(log, prefix)
    assert event.feedback_id == f"{TURN}!f"
    assert record.partition == partition_of(b"acme:chat-1", 5)
