"""tailrace.cloudevents: what a body leaves out is in its event, in binary and structured mode."""

from __future__ import annotations

import base64
import json

import pytest

from tailrace import events, ids
from tailrace.errors import InvalidRecord
from tailrace.wire import Wire

TURN = "acme:chat~01HF7YAT00000"
SAID = {"metric_name": "thumbs", "value": True}
EVENT = {"specversion": "1.0", "type": "com.example.vote", "source": "/shop", "id": "vote-7"}
STRUCTURED = {"content-type": b"application/cloudevents+json; charset=UTF-8"}


def binary(body, **attributes):
    headers = {f"ce_{name}": value.encode() for name, value in (EVENT | attributes).items()}
    headers["content-type"] = b"application/json"
    return Wire().decode(events.Feedback, json.dumps(body).encode(), headers, time_ms=9)


def structured(**envelope):
    given = {k: v for k, v in (EVENT | envelope).items() if v is not ...}
    return Wire().decode(events.Feedback, json.dumps(given).encode(), STRUCTURED, time_ms=9)


def test_a_body_without_an_id_has_that_of_its_event():
    record = binary(SAID | {"inference_id": TURN})
    assert record.feedback_id == f"{TURN}!vote-7"
    assert (record.boolean, record.event_time_ms) == (True, 9)


def test_what_the_body_says_stands():
    said = SAID | {"inference_id": TURN, "feedback_id": "mine", "event_time_ms": 5}
    record = binary(said, subject="acme:chat", time="2026-11-20T12:00:00Z")
    assert (record.feedback_id, record.event_time_ms) == (f"{TURN}!mine", 5)
    assert record.session_id is None


def test_a_full_id_of_the_subject_is_taken_as_it_is():
    assert binary(SAID | {"inference_id": TURN}, id=f"{TURN}!x").feedback_id == f"{TURN}!x"


@pytest.mark.parametrize("event_id", ["a b", "x" * 129, "ü", "a/b", "acme:other!x", f"{TURN}!a b"])
def test_a_foreign_id_becomes_a_token_the_same_each_time(event_id):
    first, again = (binary(SAID | {"inference_id": TURN}, id=event_id) for _ in range(2))
    assert first.feedback_id == again.feedback_id
    assert ids.subject_of(first.feedback_id) == TURN
    elsewhere = binary(SAID | {"inference_id": TURN}, id=event_id, source="/other")
    assert elsewhere.feedback_id != first.feedback_id


@pytest.mark.parametrize(
    ("time", "event_time_ms"),
    [
        ("2026-11-20T12:00:00Z", 1_795_176_000_000),
        ("2026-11-20T12:00:00.250+01:00", 1_795_172_400_250),
        ("2026-11-20T12:00:00", 9),
        ("yesterday", 9),
        ("1960-01-01T00:00:00Z", 9),
        ("0001-01-01T00:00:00+23:59", 9),
        ("", 9),
    ],
)
def test_the_time_of_the_event_where_it_can_be_read(time, event_time_ms):
    assert binary(SAID | {"inference_id": TURN}, time=time).event_time_ms == event_time_ms


@pytest.mark.parametrize("subject", [TURN, "acme:chat"])
def test_the_subject_of_the_event(subject):
    record = binary(SAID, subject=subject)
    assert (record.interaction_id or record.session_id) == subject
    assert record.feedback_id == f"{subject}!vote-7"


def test_headers_that_are_no_text_say_nothing():
    headers = {"content-type": b"application/json", "ce_id": b"\xff", "ce_time": b"\xff"}
    said = json.dumps(SAID | {"inference_id": TURN, "feedback_id": "f"}).encode()
    assert Wire().decode(events.Feedback, said, headers, time_ms=9).event_time_ms == 9
    with pytest.raises(InvalidRecord):
        Wire().decode(events.Feedback, said.replace(b"feedback_id", b"tags"), headers)


def test_structured_mode_says_the_same_as_binary():
    attributes = {"subject": TURN, "time": "2026-11-20T12:00:00Z"}
    assert structured(data=SAID, **attributes) == binary(SAID, **attributes)
    packed = base64.b64encode(json.dumps(SAID).encode()).decode()
    assert structured(data_base64=packed, **attributes) == binary(SAID, **attributes)


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"data": None},
        {"data": [SAID]},
        {"data": json.dumps(SAID)},
        {"data": SAID, "data_base64": ""},
        {"data_base64": "no base64"},
        {"data_base64": base64.b64encode(b"\xff").decode()},
        {"data_base64": 5},
        {"data": SAID, "id": ...},
        {"data": SAID, "source": ...},
        {"data": SAID, "specversion": "0.3"},
        {"data": SAID, "subject": 5},
        {"data": SAID, "subject": "chat"},
        {"data": SAID, "subject": "acme:other!x"},
    ],
)
def test_an_envelope_that_is_none_is_refused(envelope):
    with pytest.raises(InvalidRecord):
        structured(**{"subject": TURN, **envelope})


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b"\xff", b'"\xff"', b"[" * 5000, b"\xc3\x01"])
def test_bytes_that_are_no_envelope_are_refused(value):
    with pytest.raises(InvalidRecord):
        Wire().decode(events.Feedback, value, STRUCTURED)
