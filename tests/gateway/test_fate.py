"""What became of a feedback: a real Redis over a log in memory."""

from __future__ import annotations

import pytest
import redis as redis_library
from redis.asyncio.client import Pipeline

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


def test_the_same_id_again(start, redis, log):
    gateway = start(redis=redis.url)
    said = {"metric_name": "thumbs", "value": True, "inference_id": gateway.chat().id}
    said["feedback_id"] = "mine"
    first = gateway.http.post("/v1/feedback", json=said)
    again = gateway.http.post("/v1/feedback", json=said)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = gateway.http.post("/v1/feedback", json=said | {"value": False})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")
    assert len(gateway.records(topics.FEEDBACK, 1)) == 1
    for _ in range(2):
        assert gateway.http.delete(f"/v1/feedback/{first.json()['feedback_id']}").status_code == 202
    assert len(gateway.records(topics.FEEDBACK, 2)) == 2


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


def test_what_could_not_be_kept_may_come_again_changed(start, redis, log):
    log.down = True
    gateway = start(redis=redis.url, spool_bytes=6_000)
    said = {"metric_name": "comment", "value": "x" * 9_000, "inference_id": gateway.chat().id}
    said["feedback_id"] = "mine"
    assert gateway.http.post("/v1/feedback", json=said).status_code == 503
    assert gateway.http.post("/v1/feedback", json=said | {"value": "short"}).status_code == 202


def test_a_refused_array_claims_no_ids(start, redis, log):
    gateway = start(redis=redis.url)
    said = {"metric_name": "thumbs", "value": True, "inference_id": gateway.chat().id}
    assert gateway.http.post("/v1/feedback", json=said | {"feedback_id": "old"}).status_code == 202
    array = [said | {"feedback_id": "new"}, said | {"feedback_id": "old", "value": False}]
    assert gateway.http.post("/v1/feedback", json=array).status_code == 409
    changed = said | {"feedback_id": "new", "value": False}
    assert gateway.http.post("/v1/feedback", json=changed).status_code == 202


def test_an_array_of_a_thousand_takes_two_round_trips(start, redis, log, monkeypatch):
    gateway = start(redis=redis.url)
    said = {"metric_name": "thumbs", "value": True, "inference_id": gateway.chat().id}
    array = [said | {"feedback_id": str(number)} for number in range(1000)]
    trips = []
    execute = Pipeline.execute

    async def counted(pipe, *args, **named):
        trips.append(len(pipe))
        return await execute(pipe, *args, **named)

    monkeypatch.setattr(Pipeline, "execute", counted)
    assert gateway.http.post("/v1/feedback", json=array).status_code == 202
    assert len(trips) == 2
    gateway.records(topics.FEEDBACK, 1000)
    assert gateway.http.post("/v1/feedback", json=array).status_code == 202
    assert len(trips) == 3
    assert len(gateway.records(topics.FEEDBACK, 1000)) == 1000


def test_an_array_that_contradicts_itself_asks_and_claims_nothing(start, redis, log):
    gateway = start(redis=redis.url)
    said = {"metric_name": "thumbs", "value": True, "inference_id": gateway.chat().id}
    array = [said | {"feedback_id": name} for name in ("a", "b", "b")]
    array[2] |= {"value": False}
    assert gateway.http.post("/v1/feedback", json=array).status_code == 409
    assert gateway.http.post("/v1/feedback", json=array[::2]).status_code == 202


def test_the_same_body_by_another_key_is_the_same(start, redis, log):
    gateway = start(redis=redis.url, keys={"sk-old": "acme", "sk-new": "acme"})
    old, new = ({"authorization": f"Bearer {key}"} for key in ("sk-old", "sk-new"))
    turn = gateway.chat(extra_headers=old).id
    said = {"metric_name": "thumbs", "value": True, "inference_id": turn, "feedback_id": "mine"}

    def give(document, headers):
        return gateway.http.post("/v1/feedback", json=document, headers=headers).status_code

    assert give(said, old) == 202
    assert give(said, new) == 202
    asked = gateway.http.post("/v1/feedback/tokens", json={"inference_id": turn}, headers=new)
    assert give(said, {"authorization": f"Bearer {asked.json()['token']}"}) == 202
    assert give(said | {"value": False}, new) == 409
    assert len(gateway.records(topics.FEEDBACK, 1)) == 1


def test_redis_and_kafka_are_down(start, log):
    log.down = True
    gateway = start(redis="redis://127.0.0.1:9/0")
    assert give(gateway, feedback_id="mine").status_code == 202
    log.down = False
    (record,) = gateway.records(topics.FEEDBACK, 1)
    assert record.feedback_id.endswith("!mine")
