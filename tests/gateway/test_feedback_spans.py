"""The span of a feedback request: of the client's trace, in its records, and so what the join that
counts them is linked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace import ids, topics
from tailrace.stream import read_all
from tests.gateway.conftest import MODEL
from tests.traces.receiver import OTHER, TRACE, Receiver, context_of, receiving

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def traced(log) -> list[str]:
    """The spans that records of feedback name, in the order of the log."""
    records = [record for record in read_all(log, topics.FEEDBACK.name)]
    return [context_of(record.headers["traceparent"].decode()) for record in records]


def test_feedback_has_a_span_of_its_own_trace_and_its_records_have_that(start, log, receiver):
    gateway = start(otlp_endpoint=receiver.url)
    gateway.on_kafka()
    asked = gateway.http.post("/v1/chat/completions", json=ASKED, headers={"traceparent": TRACE})
    turn = asked.json()["id"]
    thumb = {"metric_name": "thumbs", "value": True, "inference_id": turn}
    headers = {"traceparent": OTHER}
    name = gateway.http.post("/v1/feedback", json=thumb, headers=headers).json()["feedback_id"]
    gateway.http.delete(f"/v1/feedback/{name}", headers=headers)
    gateway.stop()
    _, given, taken = receiver.spans(3)
    assert (given.service, given.name, given.failed) == ("tailrace-gateway", "feedback", False)
    assert f"{given.trace}-{given.parent}" == context_of(OTHER)
    assert given.links == [] and given.trace not in TRACE
    assert sorted(traced(log)) == sorted([given.context, taken.context])
    same = {
        "gen_ai.response.id": turn,
        "gen_ai.conversation.id": ids.session_of(turn),
        "tailrace.feedback": 1,
    }
    assert given.attributes == same | {
        "gen_ai.evaluation.name": "thumbs",
        "gen_ai.evaluation.score.value": 1.0,
        "tailrace.feedback_id": name,
        "tailrace.action": "set",
    }
    assert taken.attributes == same | {
        "tailrace.feedback_id": ids.retraction_of(name),
        "tailrace.action": "retract",
    }


def test_many_have_one_span_and_no_comment_is_in_it(start, log, receiver):
    gateway = start(otlp_endpoint=receiver.url)
    gateway.on_kafka()
    turns = [ids.new_interaction("default:s", gateway.gateway._now_ms()) for _ in range(3)]
    said = [{"metric_name": "comment", "value": "a secret", "inference_id": t} for t in turns]
    answer = gateway.http.post("/v1/feedback", json=said)
    assert answer.status_code == 202
    gateway.stop()
    [span] = receiver.spans(1)
    assert span.parent == "" and span.attributes == {"tailrace.feedback": 3}
    assert traced(log) == [span.context] * 3
    assert "secret" not in str(span)


def test_what_was_refused_failed(start, receiver):
    gateway = start(otlp_endpoint=receiver.url)
    gateway.on_kafka()
    turn = ids.new_interaction("default:s", gateway.gateway._now_ms())
    said = {"metric_name": "thumbs", "inference_id": turn, "feedback_id": f"{turn}!x"}
    two = [said | {"value": True}, said | {"value": False}]
    assert gateway.http.post("/v1/feedback", json=two).status_code == 409
    gateway.stop()
    [span] = receiver.spans(1)
    assert span.failed and span.attributes["error.type"] == "conflict"
    assert span.attributes["gen_ai.response.id"] == turn
