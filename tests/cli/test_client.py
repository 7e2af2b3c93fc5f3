"""``tailrace.Client``: what it sends, how it tries again, what it says of a refusal."""

import json
import math

import httpx
import pytest

import tailrace
from tailrace import Client, FeedbackRefused, feedback_json
from tailrace.errors import InvalidRecord

TURN = "default:s~0000000000000"


def _client(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    left = list(answers)
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    transport = httpx.MockTransport(answer)
    client = Client("http://gateway/v1/", "key", transport=transport, sleep=lambda _: None)
    return client, seen


def test_feedback_is_sent_as_the_gateway_takes_it() -> None:
    client, seen = _client(httpx.Response(202, json={"feedback_id": f"{TURN}!x"}))
    with client:
        assert client.feedback(TURN, True, tags={"page": "home"}) == f"{TURN}!x"
        client.feedback("default:s", 4, metric="stars", replaces="default:s!old")
    first, second = (json.loads(request.content) for request in seen)
    token = first.pop("feedback_id")
    assert len(token) >= 16
    assert first == {
        "inference_id": TURN,
        "metric_name": "thumbs",
        "value": True,
        "tags": {"page": "home"},
    }
    assert second["episode_id"] == "default:s"
    assert second["replaces"] == "default:s!old"
    assert str(seen[0].url) == "http://gateway/v1/feedback"
    assert seen[0].headers["authorization"] == "Bearer key"


def test_each_kind_has_its_words() -> None:
    client, seen = _client(httpx.Response(202, json={}))
    client.feedback(TURN, "say so", metric="edit", kind="demonstration", choice=2)
    client.feedback(TURN, preferred_over="1", metric="better", feedback_id="mine", user="u")
    client.feedback(TURN, 0.5, metric="polite", source="grader", grader="polite")
    first, second, third = (json.loads(request.content) for request in seen)
    assert (first["kind"], first["choice"], first["value"]) == ("demonstration", 2, "say so")
    assert second == {
        "inference_id": TURN,
        "metric_name": "better",
        "preferred_over": "1",
        "feedback_id": "mine",
        "user": "u",
    }
    assert (third["source"], third["grader"]) == ("grader", "polite")
    for document in (first, second, third):
        assert feedback_json.from_document(document, now_ms=1).metric == document["metric_name"]


def test_what_json_cannot_hold_is_refused_by_its_field() -> None:
    client, seen = _client(httpx.Response(202, json={}))
    for value in (math.nan, -math.inf, float("1e999"), "half \ud800"):
        with pytest.raises(InvalidRecord, match="^value: cannot be sent as JSON: ") as refused:
            client.feedback(TURN, value, metric="stars")
        assert refused.value.reason == "value"
    with pytest.raises(InvalidRecord, match="^tags: "):
        client.feedback(TURN, True, tags={"page": object()})  # type: ignore[dict-item]
    said = {"inference_id": TURN, "metric_name": "stars"}
    with pytest.raises(InvalidRecord, match=r"^value: cannot be sent as JSON \(of \[1\]\): "):
        client.batch([said | {"value": 1.0}, said | {"value": math.nan}])
    assert not seen


def test_a_batch_is_split_and_keeps_its_ids() -> None:
    sent: list[list[dict[str, object]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        documents = json.loads(request.content)
        sent.append(documents)
        if len(sent) == 2:
            return httpx.Response(503, headers={"retry-after": "7"})
        ids = [{"feedback_id": f"{TURN}!{one['feedback_id']}"} for one in documents]
        return httpx.Response(202, json=ids)

    paused: list[float] = []
    transport = httpx.MockTransport(answer)
    said = {"inference_id": TURN, "metric_name": "thumbs", "value": True}
    own = {5: {"feedback_id": "mine"}, 6: {"feedback_id": None}}
    documents = [said | own.get(n, {}) for n in range(2001)]
    with Client("http://gateway", transport=transport, sleep=paused.append) as client:
        given = client.batch(documents)
        assert client.batch([]) == []
    assert [len(part) for part in sent] == [1000, 1000, 1000, 1]
    assert sent[1] == sent[2], "a retry says the same under the same ids"
    assert paused == [7.0]
    assert given[5] == f"{TURN}!mine"
    assert len(set(given)) == 2001
    assert given == [
        f"{TURN}!{one['feedback_id']}" for part in (*sent[:1], *sent[2:]) for one in part
    ]


def test_a_batch_that_is_refused_says_so() -> None:
    client, _ = _client(httpx.Response(400, json={"error": {"message": "item 3: no value"}}))
    with pytest.raises(FeedbackRefused, match="item 3"):
        client.batch([{"inference_id": TURN}])


def test_a_page_has_a_token_in_place_of_a_key() -> None:
    client, seen = _client(httpx.Response(201, json={"token": "trt1.a.b", "expires": "soon"}))
    assert client.token(TURN, metrics=["thumbs"], expires_in_s=60) == "trt1.a.b"
    asked = json.loads(seen[0].content)
    assert asked == {"inference_id": TURN, "metrics": ["thumbs"], "expires_in_s": 60}
    assert str(seen[0].url) == "http://gateway/v1/feedback/tokens"
    transport = httpx.MockTransport(lambda r: seen.append(r) or httpx.Response(202, json={}))
    with Client("http://gateway", token="trt1.a.b", transport=transport) as page:
        page.feedback(TURN, True)
    assert seen[1].headers["authorization"] == "Bearer trt1.a.b"
    with pytest.raises(ValueError, match="either"):
        Client("http://gateway", "key", token="trt1.a.b")


def test_retries_keep_the_id() -> None:
    client, seen = _client(
        httpx.ConnectError("down"), httpx.Response(503), httpx.Response(202, json={})
    )
    given = client.feedback(TURN, False)
    assert {json.loads(request.content)["feedback_id"] for request in seen} == {given}
    assert len(seen) == 3


def test_what_is_wrong_is_not_retried_and_says_why() -> None:
    client, seen = _client(httpx.Response(409, json={"error": {"message": "another body"}}))
    with pytest.raises(FeedbackRefused, match="409: another body") as refused:
        client.feedback(TURN, True)
    assert refused.value.status == 409
    assert len(seen) == 1
    assert isinstance(refused.value, tailrace.TailraceError)


def test_a_gateway_that_is_away_is_given_up_at_last() -> None:
    client, seen = _client(httpx.ReadTimeout("slow"))
    with pytest.raises(FeedbackRefused, match="no answer"):
        client.feedback(TURN, True)
    assert len(seen) == 5


def test_a_page_in_place_of_json_is_no_crash() -> None:
    client, _ = _client(httpx.Response(404, text="<html>nothing here"))
    with pytest.raises(FeedbackRefused, match="nothing here"):
        client.fate(f"{TURN}!x")


def test_the_public_names_are_there_and_lazy() -> None:
    for name in tailrace.__all__:
        assert getattr(tailrace, name) is not None
    assert set(tailrace.__all__) <= set(dir(tailrace))
    with pytest.raises(AttributeError, match="nothing"):
        tailrace.nothing  # noqa: B018
