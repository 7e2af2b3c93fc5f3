"""W3C trace context: what came with a request is in the headers of its records."""

from __future__ import annotations

import pytest

from services.gateway import metrics
from tailrace import topics
from tailrace.stream import read_all
from tests.gateway.conftest import MODEL

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
THUMB = {"metric_name": "thumbs", "value": True}


def traces(log, topic):
    return [record.headers.get("traceparent") for record in read_all(log, topic.name)]


def use(gateway, trace):
    """One answer and one feedback about it, taken back again."""
    headers = {} if trace is None else {"traceparent": trace}
    answer = gateway.http.post("/v1/chat/completions", json=ASKED, headers=headers)
    thumb = THUMB | {"inference_id": answer.json()["id"]}
    given = gateway.http.post("/v1/feedback", json=thumb, headers=headers)
    name = given.json()["feedback_id"]
    taken = gateway.http.delete(f"/v1/feedback/{name}", headers=headers)
    assert (answer.status_code, given.status_code, taken.status_code) == (200, 202, 202)


def test_every_record_of_a_request_carries_its_trace(gateway, log):
    gateway.on_kafka()
    use(gateway, TRACE)
    gateway.records(topics.OUTPUTS, 1)
    for topic, count in ((topics.PROMPTS, 1), (topics.OUTPUTS, 1), (topics.FEEDBACK, 2)):
        assert traces(log, topic) == [TRACE.encode()] * count


def test_a_streamed_answer_carries_it_too(gateway, log):
    with gateway.http.stream(
        "POST",
        "/v1/chat/completions",
        json=ASKED | {"stream": True},
        headers={"traceparent": TRACE},
    ) as answer:
        assert answer.read()
    gateway.records(topics.OUTPUTS, 1)
    assert traces(log, topics.OUTPUTS) == [TRACE.encode()]


def test_it_survives_the_spool(start, log):
    log.down = True
    gateway = start()
    use(gateway, TRACE)
    log.down = False
    gateway.records(topics.OUTPUTS, 1)
    gateway.on_kafka()
    for topic, count in ((topics.PROMPTS, 1), (topics.OUTPUTS, 1), (topics.FEEDBACK, 2)):
        assert traces(log, topic) == [TRACE.encode()] * count


def test_what_had_no_room_keeps_it(start, log):
    log.down = True
    gateway = start(spool_bytes=1)
    gateway.http.post("/v1/chat/completions", json=ASKED, headers={"traceparent": TRACE})
    log.down = False
    gateway.records(topics.OUTPUTS, 1)
    assert traces(log, topics.PROMPTS) == traces(log, topics.OUTPUTS) == [TRACE.encode()]


@pytest.mark.parametrize(
    "trace",
    [
        None,
        "",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        TRACE.upper(),
        TRACE + "-more",
        "ff" + TRACE[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "00-" + "4" * 1000,
    ],
)
def test_what_is_none_is_ignored_and_counted(gateway, log, trace):
    before = metrics.TRACEPARENTS_IGNORED._value.get()
    use(gateway, trace)
    gateway.records(topics.OUTPUTS, 1)
    for topic in (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK):
        assert set(traces(log, topic)) == {None}
    assert metrics.TRACEPARENTS_IGNORED._value.get() - before == (0 if trace is None else 3)
