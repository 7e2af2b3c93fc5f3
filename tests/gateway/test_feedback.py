"""Feedback over HTTP, without Redis: checked, durable, spooled, in order."""

from __future__ import annotations

import json

import pytest

from services.gateway import feedback
from services.gateway.caller import Caller
from services.gateway.tokens import Grant
from tailrace import ids, topics
from tailrace.errors import SettingsError
from tailrace.events import FeedbackContent
from tailrace.feedback_json import same
from tailrace.log import memory
from tests.gateway.conftest import read
from tests.gateway.fakevllm import wait_until

TURN = ids.new_interaction("default:chat", 1_790_000_000_000)
NOW_MS = 1_790_000_100_000
ME = Caller("default", None, grader=True)


def parse(document, kinds=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return feedback.read(body, ME, user="u", kinds=kinds or {}, now_ms=NOW_MS)


def thumbs(**changes):
    said = {"metric_name": "thumbs", "value": True, "inference_id": TURN}
    return {k: v for k, v in (said | changes).items() if v is not ...}


def test_ids_are_made_and_completed():
    (record,), many = parse(thumbs())
    assert not many and record.feedback_id.startswith(f"{TURN}!")
    assert (record.tenant, record.user, record.boolean) == ("default", "u", True)
    (record,), _ = parse(thumbs(inference_id=TURN.partition(":")[2], feedback_id="t"))
    assert (record.interaction_id, record.feedback_id) == (TURN, f"{TURN}!t")
    (record,), _ = parse(thumbs(inference_id=..., episode_id="chat", feedback_id="default:chat!t"))
    assert (record.session_id, record.feedback_id) == ("default:chat", "default:chat!t")


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"value": NaN}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        pytest.param(
            b'{"metric_name":"stars","value":1e999,"inference_id":"%s"}' % TURN.encode(),
            *(400, None),
            id="1e999",
        ),
        (thumbs(value=10**400), 400, None),
        (thumbs(value=...), 400, "value"),
        (thumbs(value=None), 400, "value"),
        (thumbs(value=[1]), 400, "json"),
        (thumbs(value="maybe"), 400, "value"),
        (thumbs(value=1), 400, "value"),
        (thumbs(metric_name="stars", value=True), 400, "value"),
        (thumbs(metric_name="comment", value=4), 400, "value"),
        (thumbs(metric_name=...), 400, "metric"),
        (thumbs(inference_id=...), 400, "subject"),
        (thumbs(episode_id="chat"), 400, "subject"),
        (thumbs(inference_id="default:chat"), 400, "subject"),
        (thumbs(inference_id="a b~c"), 400, "id"),
        (thumbs(inference_id=4), 400, "json"),
        (thumbs(inference_id=f"acme:{TURN.partition(':')[2]}"), 403, "foreign"),
        (thumbs(inference_id=ids.new_interaction("default:s", NOW_MS * 2)), 400, "impossible"),
        (thumbs(inference_id="default:s~0000000000000"), 400, "impossible"),
        (thumbs(feedback_id="default:other!t"), 400, "id"),
        (thumbs(feedback_id="a b"), 400, "id"),
        (thumbs(replaces="acme:chat!t"), 403, "foreign"),
        (thumbs(choice=-1), 400, None),
        (thumbs(choice=128), 400, None),
        (thumbs(source="grader"), 400, "source"),
        (thumbs(source="engine"), 400, "source"),
        (thumbs(kind="number"), 400, "value"),
        (thumbs(kind="comment", metric_name="note"), 400, "value"),
        (thumbs(kind="thing"), 400, "kind"),
        (thumbs(kind="preference", metric_name="best"), 400, "preferred_over"),
        (thumbs(preferred_over="1"), 400, "value"),
        (thumbs(metric_name="best", preferred_over="0", value=...), 400, "preferred_over"),
        (thumbs(metric_name="best", preferred_over="128", value=...), 400, "preferred_over"),
        (thumbs(metric_name="best", preferred_over="1", value=False), 400, "value"),
        (
            thumbs(metric_name="best", preferred_over="acme:s~0000000000000", value=...),
            403,
            "foreign",
        ),
        (
            thumbs(metric_name="best", preferred_over="other~0000000000000", value=...),
            400,
            "preferred_over",
        ),
        (thumbs(grader="me"), 400, "source"),
        (thumbs(action="retract", value=...), 400, "action"),
        (thumbs(metricname="x"), 400, "json"),
        (b"4", 400, "json"),
        (b"[]", 400, "invalid_value"),
    ],
)
def test_what_is_refused(document, status, code):
    with pytest.raises(feedback.ApiError) as caught:
        parse(document, {"thumbs": "boolean", "stars": "number"})
    assert (caught.value.status, caught.value.code) == (status, code or caught.value.code)


def test_every_kind_becomes_its_field():
    bare = TURN.partition(":")[2]
    edit = {"metric_name": "edit", "kind": "demonstration", "value": "Better."}
    best = {"metric_name": "best", "value": ...}
    for said, field, value in (
        ({}, "boolean", True),
        ({"metric_name": "stars", "value": 4}, "number", 4.0),
        ({"metric_name": "tone", "value": "kind"}, "category", "kind"),
        ({"metric_name": "comment", "value": "so so"}, "content", FeedbackContent(text="so so")),
        (edit, "content", FeedbackContent(text="Better.")),
        (best | {"preferred_over": "1"}, "preferred_over", "1"),
        (best | {"preferred_over": f"{bare}/2"}, "preferred_over", f"{TURN}/2"),
    ):
        (record,), _ = parse(thumbs(**said))
        assert getattr(record, field) == value, said
    assert parse(thumbs(**edit))[0][0].kind == "demonstration"
    preferred = parse(thumbs(**best, preferred_over="1"), {"best": "preference"})
    assert preferred[0][0].kind == "preference"


def test_a_grader_gives_its_name_and_holds_a_graders_key(start):
    keys = {"sk-app": "acme", "sk-judge": "acme"}
    gateway = start(keys=keys, graders=("sk-judge",))
    said = {"metric_name": "polite", "value": 0.5, "episode_id": "s"}
    graded = said | {"source": "grader", "grader": "polite"}

    def give(key, document):
        headers = {"authorization": f"Bearer {key}"}
        return gateway.http.post("/v1/feedback", json=document, headers=headers)

    refused = give("sk-app", graded)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_a_grader")
    assert give("sk-app", [said, graded]).status_code == 403
    assert give("sk-judge", graded).status_code == 202
    assert give("sk-judge", said | {"source": "implicit"}).status_code == 202
    given = gateway.records(topics.FEEDBACK, 2)
    assert [(r.source, r.grader) for r in given] == [("grader", "polite"), ("implicit", None)]
    with pytest.raises(SettingsError, match="graders"):
        start(keys=keys, graders=("sk-other",))


def test_without_keys_anybody_is_a_grader_but_no_page():
    graded = thumbs(source="grader", grader="polite", metric_name="polite", value=0.5)
    (record,), _ = parse(graded)
    assert (record.source, record.grader, record.number) == ("grader", "polite", 0.5)
    page = Caller("default", None, Grant(interaction=TURN, expires_s=1))
    with pytest.raises(feedback.ApiError) as caught:
        feedback.read(json.dumps(graded).encode(), page, user=None, kinds={}, now_ms=NOW_MS)
    assert (caught.value.status, caught.value.code) == (403, "token_source")


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"feedback_id": "polite.0.0123456789ab"}, True),
        ({"feedback_id": "retract-x"}, True),
        ({"feedback_id": "retract-x", "action": "retract", "replaces": "a"}, True),
        ({"feedback_id": "vote-1.0"}, False),
    ],
)
def test_a_page_cannot_take_the_id_of_a_grader_or_a_retraction(said, refused):
    page = Caller("default", None, Grant(interaction=TURN, expires_s=1))
    body = json.dumps(thumbs(**said)).encode()
    if refused:
        with pytest.raises(feedback.ApiError) as caught:
            feedback.read(body, page, user=None, kinds={}, now_ms=NOW_MS)
        assert (caught.value.status, caught.value.code) == (403, "token_id")
    else:
        feedback.read(body, page, user=None, kinds={}, now_ms=NOW_MS)
    parse(thumbs(**said))  # with a key it may
    assert feedback.retraction(f"{TURN}!a", page, user=None, now_ms=NOW_MS).replaces == f"{TURN}!a"


def test_a_token_prefers_among_the_choices_of_its_interaction():
    page = Caller("default", None, Grant(interaction=TURN, expires_s=1))

    def prefer(over):
        said = thumbs(metric_name="best", preferred_over=over, value=...)
        return feedback.read(json.dumps(said).encode(), page, user=None, kinds={}, now_ms=NOW_MS)

    assert prefer("1") and prefer(f"{TURN}/1")
    with pytest.raises(feedback.ApiError) as caught:
        prefer("default:chat~0000000000000")
    assert (caught.value.status, caught.value.code) == (403, "token_subject")


def test_an_array_says_which_is_wrong():
    with pytest.raises(feedback.ApiError) as caught:
        parse([thumbs(), thumbs(choice=-1)])
    assert caught.value.param == "[1]"


def test_a_retraction_is_the_same_each_time():
    first = feedback.retraction(f"{TURN}!t", ME, user=None, now_ms=1)
    again = feedback.retraction(f"{TURN}!t", ME, user="u9", now_ms=2)
    assert first.feedback_id == again.feedback_id
    assert same(first) == same(again)
    assert (first.action, first.replaces, first.interaction_id) == ("retract", f"{TURN}!t", TURN)


def test_given_and_taken_back(gateway):
    answer = gateway.chat()
    sent = gateway.http.post(
        "/v1/feedback",
        json={
            "metric_name": "thumbs",
            "value": False,
            "inference_id": answer.id,
            "tags": {"a": "b"},
        },
        headers={"x-tailrace-user": "u9"},
    )
    assert sent.status_code == 202
    feedback_id = sent.json()["feedback_id"]
    many = gateway.http.post(
        "/v1/feedback",
        json=[
            {"metric_name": "stars", "value": 4, "inference_id": answer.id, "feedback_id": "one"},
            {"metric_name": "comment", "value": "so so", "inference_id": answer.id},
        ],
    )
    assert many.status_code == 202 and many.json()[0] == {"feedback_id": f"{answer.id}!one"}
    taken = gateway.http.delete(f"/v1/feedback/{feedback_id}")
    assert taken.status_code == 202 and taken.json()["retracts"] == feedback_id
    records = gateway.records(topics.FEEDBACK, 4)
    assert [r.action for r in records] == ["set", "set", "set", "retract"]
    assert (records[0].user, records[0].tags, records[0].boolean) == ("u9", {"a": "b"}, False)
    assert gateway.http.delete("/v1/feedback/acme:s!x").status_code == 403
    assert gateway.http.delete("/v1/feedback/nonsense").status_code == 400
    assert gateway.http.get(f"/v1/feedback/{feedback_id}").status_code == 503
    assert gateway.http.get("/v1/feedback/acme:s!x").status_code == 403
    assert gateway.http.get("/v1/feedback/nonsense").status_code == 400


def test_the_same_id_twice_in_an_array(gateway):
    said = [thumbs(feedback_id="x"), thumbs(feedback_id="x", value=False)]
    said = [s | {"inference_id": gateway.chat().id} for s in said]
    said[1]["inference_id"] = said[0]["inference_id"]
    assert gateway.http.post("/v1/feedback", json=said).status_code == 409
    assert gateway.http.post("/v1/feedback", json=[said[0], said[0]]).status_code == 202
    assert len(gateway.records(topics.FEEDBACK, 1)) == 1


def test_kafka_goes_away_and_comes_back(gateway, log):
    answer = gateway.chat()
    gateway.on_kafka()
    log.down = True
    for number in range(5):
        said = {"metric_name": "stars", "value": number, "inference_id": answer.id}
        assert gateway.http.post("/v1/feedback", json=said).status_code == 202
    log.down = False
    assert [r.number for r in gateway.records(topics.FEEDBACK, 5)] == [0, 1, 2, 3, 4]
    gateway.on_kafka()


def test_a_full_spool_refuses_and_says_when_to_come_again(start, log):
    log.down = True
    gateway = start(spool_bytes=20_000)
    answer = gateway.chat()
    said = {"metric_name": "comment", "value": "x" * 900, "inference_id": answer.id}
    statuses = [gateway.http.post("/v1/feedback", json=said) for _ in range(30)]
    accepted = sum(response.status_code == 202 for response in statuses)
    assert 10 < accepted < 25
    assert statuses[-1].status_code == 503 and statuses[-1].headers["retry-after"]
    assert statuses[-1].json()["error"]["code"] == "spool_full"
    log.down = False
    gateway.on_kafka()
    assert len(read(log, topics.FEEDBACK)) == accepted
    assert gateway.http.post("/v1/feedback", json=said).status_code == 202


def test_what_had_no_room_is_written_without_content(start, log):
    log.down = True
    gateway = start(spool_bytes=12_000, queue_bytes=100_000)
    for _ in range(20):
        gateway.chat(messages=[{"role": "user", "content": "water " * 50}])
    log.down = False
    prompts, outputs = gateway.records(topics.PROMPTS, 20), gateway.records(topics.OUTPUTS, 20)
    gateway.on_kafka()
    lost = [o for o in outputs if o.untrainable == "capture_lost"]
    assert 0 < len(lost) < 20 and all(o.content is None for o in lost)
    whole = {p.interaction_id for p in prompts if p.content is not None}
    assert all(o.interaction_id in whole for o in outputs if o.untrainable is None)
    assert len({o.interaction_id for o in outputs}) == 20
    wait_until(lambda: "tailrace_gateway_lost_total" in gateway.http.get("/metrics").text, "count")


def test_what_the_log_never_takes_does_not_stand_in_the_way(start, log, monkeypatch):
    log.down = True
    gateway = start()
    long = gateway.chat(messages=[{"role": "user", "content": "water " * 2_000}])
    said = {"metric_name": "comment", "value": "x" * 9_000, "inference_id": long.id}
    assert gateway.http.post("/v1/feedback", json=said).status_code == 202
    gateway.chat()
    monkeypatch.setattr(memory, "MAX_RECORD_BYTES", 5_000)
    log.down = False
    gateway.on_kafka()
    prompts = {p.interaction_id: p for p in gateway.records(topics.PROMPTS, 2)}
    assert len(prompts) == 2 and prompts[long.id].content is None
    answer = gateway.http.post("/v1/feedback", json=said)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_large")
    assert gateway.http.post("/v1/feedback", json=said | {"value": "short"}).status_code == 202
    assert [r.content.text for r in read(log, topics.FEEDBACK)] == ["short"]
