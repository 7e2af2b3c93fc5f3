"""tailrace.feedback_json: the documented table, and a clear no to everything else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.wire import Wire

TURN = "acme:chat~01HF7YAT00000"
JSON = {"content-type": b"application/json; charset=utf-8"}


def decode(**document):
    given = {"metric_name": "thumbs", "value": True, "inference_id": TURN, "feedback_id": "t"}
    given = {k: v for k, v in (given | document).items() if v is not ...}
    return Wire().decode(events.Feedback, json.dumps(given).encode(), JSON, time_ms=9)


def test_a_thumb():
    assert decode() == events.Feedback(
        feedback_id=f"{TURN}!t",
        interaction_id=TURN,
        event_time_ms=9,
        tenant="acme",
        kind="boolean",
        metric="thumbs",
        boolean=True,
    )


@pytest.mark.parametrize(
    ("metric", "value", "kind", "field", "stored"),
    [
        ("thumbs", False, "boolean", "boolean", False),
        ("stars", 4, "number", "number", 4.0),
        ("stars", 4.5, "number", "number", 4.5),
        ("tone", "rude", "category", "category", "rude"),
        ("comment", "well put", "comment", "content", events.FeedbackContent(text="well put")),
        (
            "demonstration",
            "say so",
            "demonstration",
            "content",
            events.FeedbackContent(text="say so"),
        ),
    ],
)
def test_the_value_says_the_kind(metric, value, kind, field, stored):
    record = decode(metric_name=metric, value=value)
    assert (record.kind, record.metric, getattr(record, field)) == (kind, metric, stored)


def test_feedback_for_a_session():
    record = decode(inference_id=..., episode_id="acme:chat")
    assert (record.session_id, record.interaction_id) == ("acme:chat", None)
    assert record.feedback_id == "acme:chat!t"


def test_a_retraction_needs_a_target_and_no_value():
    record = decode(action="retract", replaces="first", value=..., metric_name=...)
    assert (record.action, record.replaces) == ("retract", f"{TURN}!first")
    with pytest.raises(InvalidRecord):
        decode(action="retract")


@pytest.mark.parametrize(
    "document",
    [
        {"value": ...},
        {"value": None},
        {"value": [1]},
        {"value": 10**400},
        {"metric_name": ...},
        {"metric_name": ""},
        {"metric_name": "comment", "value": 1},
        {"inference_id": ...},
        {"episode_id": "acme:chat"},
        {"inference_id": "acme:chat"},
        {"inference_id": ..., "episode_id": TURN},
        {"inference_id": "chat"},
        {"inference_id": 5},
        {"feedback_id": ...},
        {"feedback_id": "a b"},
        {"feedback_id": "other:chat!t"},
        {"choice": "first"},
        {"choice": 1.5},
        {"tags": {"a": 1}},
        {"action": "drop"},
        {"replaces": "other:chat!t"},
        {"inference": TURN},
        {"event_time_ms": "now"},
        {"event_time_ms": 2**80},
    ],
)
def test_what_does_not_fit_the_table_is_refused(document):
    with pytest.raises(InvalidRecord):
        decode(**document)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b'"x"',
        b"\xff",
        b'{"value": NaN}',
        b'{"value": Infinity}',
        b"[" * 5000,
    ],
)
def test_what_is_no_object_is_refused(value):
    with pytest.raises(InvalidRecord):
        Wire().decode(events.Feedback, value, JSON)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    )
)
def test_no_document_does_harm(document):
    with pytest.raises(InvalidRecord):
        Wire().decode(events.Feedback, json.dumps(document).encode(), JSON)


def test_whatever_json_is_taken_can_be_written_as_avro():
    wire = Wire()
    for value in (True, 4, -0.0, 1e308, "x", "\U0001f600"):
        record = decode(value=value)
        assert wire.decode(events.Feedback, wire.encode(record)) == record


def test_json_is_only_for_feedback():
    with pytest.raises(InvalidRecord) as refused:
        Wire().decode(events.Output, b"{}", JSON)
    assert refused.value.reason == "not_avro"
