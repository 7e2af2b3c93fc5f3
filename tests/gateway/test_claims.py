"""A feedback id stands for one body, as far as a real Redis tells."""

from __future__ import annotations

from redis.asyncio.client import Pipeline

from tailrace import topics


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
