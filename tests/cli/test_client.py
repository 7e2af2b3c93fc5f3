import json

import httpx
import pytest

import tailrace
from tailrace import Client, FeedbackRefused

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
