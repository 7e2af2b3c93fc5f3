"""What became of a feedback: a real Redis over a log in memory."""

from __future__ import annotations

import pytest
import redis as redis_library

from services.gateway.fold import Fold
from tailrace import events, topics
from tailrace.errors import LogError
from tailrace.stream import Writer
from tailrace.wire import Wire
from tests.gateway.fakevllm import wait_until

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def writer(log):
    return Writer(log.producer(), Wire())


def give(gateway, **changes):
    said = {"metric_name": "thumbs", "value": True, "inference_id": gateway.chat().id}
    return gateway.http.post("/v1/feedback", json=said | changes)


def joined(writer, feedback_id, trajectories, outcome="joined", reason=None, time_ms=1):
    writer.write(
        topics.RECEIPTS,
        events.Receipt(
            source=events.Coordinates(topic="feedback", partition=0, offset=time_ms),
            subject_id=feedback_id,
            event_time_ms=time_ms,
            stage="rewards",
            outcome=outcome,
            reason=reason,
            trajectories=trajectories,
        ),
    )


def trained(writer, trajectory, version, outcome="trained", reason=None, successor=None):
    writer.write(
        topics.RECEIPTS,
        events.Receipt(
            subject_id=trajectory,
            trajectories=[trajectory, successor] if successor else [trajectory],
            event_time_ms=1,
            stage="trainer",
            outcome=outcome,
            reason=reason,
            model=MODEL,
            version=version,
        ),
        key="default:s",
    )


def acked(writer, version, state="applied"):
    writer.write(
        topics.MODEL_ACKS,
        events.ModelAck(
            engine="engine-0", model=MODEL, version=version, event_time_ms=1, state=state
        ),
    )


def look(gateway, feedback_id):
    response = gateway.http.get(f"/v1/feedback/{feedback_id}")
    assert response.status_code == 200, response.text
    return response.json()


def test_from_given_to_served(start, redis, log, writer):
    gateway = start(redis=redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    assert look(gateway, feedback_id)["outcome"] == "pending"
    assert gateway.http.get(f"/v1/feedback/{feedback_id}x").status_code == 404
    fold = gateway.fold
    joined(writer, feedback_id, ["t1", "t2"])
    fold.step()
    fate = look(gateway, feedback_id)
    assert (fate["outcome"], fate["trained_version"]) == ("joined", None)
    assert [t["outcome"] for t in fate["trajectories"]] == ["pending", "pending"]
    trained(writer, "t1", 42)
    trained(writer, "t2", 43, "filtered", "clipped")
    acked(writer, 41)
    acked(writer, 42, "refused")
    fold.step()
    fate = look(gateway, feedback_id)
    assert (fate["trained_version"], fate["serving_since"]) == (42, None)
    assert fate["trajectories"][1] == {
        "trajectory_id": "t2",
        "outcome": "filtered",
        "reason": "clipped",
        "version": 43,
        "superseded_by": None,
    }
    acked(writer, 44)
    acked(writer, 45)
    fold.step()
    fate = look(gateway, feedback_id)
    assert fate["serving_since_ms"] > 0 and fate["serving_since"].endswith("Z")


def test_what_was_trained_through_two_revisions(start, redis, log, writer):
    gateway = start(redis=redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, ["t0"])
    trained(writer, "t0", 40, "superseded", "revision", successor="t1")
    trained(writer, "t1", 41, "superseded", "revision", successor="t2")
    gateway.fold.step()
    fate = look(gateway, feedback_id)
    assert [(t["trajectory_id"], t["superseded_by"]) for t in fate["trajectories"]] == [
        ("t0", "t1"),
        ("t1", "t2"),
        ("t2", None),
    ]
    assert fate["trajectories"][2]["outcome"] == "pending"
    trained(writer, "t2", 42)
    acked(writer, 42)
    gateway.fold.step()
    fate = look(gateway, feedback_id)
    assert (fate["trained_version"], fate["trajectories"][2]["outcome"]) == (42, "trained")
    assert fate["serving_since_ms"] > 0


def test_revisions_in_a_circle_end(start, redis, log, writer):
    gateway = start(redis=redis.url)
    joined(writer, "default:s!x", ["t0"])
    trained(writer, "t0", 40, "superseded", "revision", successor="t1")
    trained(writer, "t1", 40, "superseded", "revision", successor="t0")
    gateway.fold.step()
    assert len(look(gateway, "default:s!x")["trajectories"]) == 2


def test_a_second_record_of_the_same_id_does_not_hide_the_first(start, redis, log, writer):
    gateway = start(redis=redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, ["t1"])
    joined(writer, feedback_id, [], "duplicate", time_ms=2)
    gateway.fold.step()
    assert look(gateway, feedback_id)["outcome"] == "joined"


def test_a_repeat_says_nothing_of_the_first(start, redis, log, writer):
    gateway = start(redis=redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, [], "conflict", time_ms=2)
    gateway.fold.step()
    assert look(gateway, feedback_id)["outcome"] == "pending"


def test_a_redis_that_forgot_everything_is_rebuilt(start, redis, log, writer):
    gateway = start(redis=redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, ["t1"])
    trained(writer, "t1", 3)
    acked(writer, 3)
    gateway.fold.step()
    before = look(gateway, feedback_id)
    with redis_library.Redis.from_url(redis.url) as client:
        client.flushall()
    assert gateway.http.get(f"/v1/feedback/{feedback_id}").status_code == 404
    gateway.fold.step()
    assert look(gateway, feedback_id) == before


def test_two_gateways_fold_into_one_redis(start, redis, log, writer):
    gateway = start(redis=redis.url)
    other = Fold(log, Wire, redis.url)
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, ["t1"])
    assert gateway.fold.step() == 1
    trained(writer, "t1", 3)
    assert other.step() == 1
    acked(writer, 3)
    assert gateway.fold.step() == 1
    assert look(gateway, feedback_id)["serving_since_ms"] > 0
    other._client.close()


def test_a_registry_that_is_away_does_not_stop_the_gateway(start, redis):
    gateway = start(redis=redis.url, registry="http://127.0.0.1:1")
    assert gateway.chat().choices
    with pytest.raises(LogError, match="registry"):
        gateway.fold.step()


def test_folding_begins_once_its_wire_can_be_made(redis, log, writer):
    tries = []

    def connect():
        tries.append(1)
        if len(tries) == 1:
            raise LogError("schema registry: away")
        return Wire()

    fold = Fold(log, connect, redis.url)
    joined(writer, "default:s!x", ["t1"])
    with pytest.raises(LogError):
        fold.step()
    assert fold.step() == 1 and len(tries) == 2
    fold._client.close()


def test_rubbish_on_a_topic_is_passed_over(start, redis, log, writer):
    gateway = start(redis=redis.url)
    log.producer().append("receipts", b"rubbish", key=b"k")
    joined(writer, "default:s!x", [])
    gateway.fold.step()
    assert look(gateway, "default:s!x")["outcome"] == "joined"


def test_the_thread_folds_by_itself(start, redis, log, writer):
    gateway = start(redis=redis.url)
    gateway.fold.start()
    feedback_id = give(gateway).json()["feedback_id"]
    joined(writer, feedback_id, ["t1"])
    wait_until(lambda: look(gateway, feedback_id)["outcome"] == "joined", "the fold")


def test_redis_is_down(start, log):
    gateway = start(redis="redis://127.0.0.1:9/0")
    sent = give(gateway)
    assert sent.status_code == 202
    response = gateway.http.get(f"/v1/feedback/{sent.json()['feedback_id']}")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_redis")
    assert response.headers["retry-after"]


def test_redis_and_kafka_are_down(start, log):
    log.down = True
    gateway = start(redis="redis://127.0.0.1:9/0")
    assert give(gateway, feedback_id="mine").status_code == 202
    log.down = False
    (record,) = gateway.records(topics.FEEDBACK, 1)
    assert record.feedback_id.endswith("!mine")
