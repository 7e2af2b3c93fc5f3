"""tailrace.feedback_json: the documented table, and a clear no to everything else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
import msgspec
import pytest

from tailrace import events, feedback_json
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


@pytest.mark.parametrize(
    ("kind", "value", "field", "stored"),
    [
        ("comment", "4", "content", events.FeedbackContent(text="4")),
        ("demonstration", "say so", "content", events.FeedbackContent(text="say so")),
        ("category", "good", "category", "good"),
        ("boolean", True, "boolean", True),
        ("number", 3, "number", 3.0),
    ],
)
def test_a_kind_may_be_said(kind, value, field, stored):
    record = decode(metric_name="anything", kind=kind, value=value)
    assert (record.kind, getattr(record, field)) == (kind, stored)
    assert decode(metric_name="comment", kind=kind, value=value).kind == kind


@pytest.mark.parametrize("value", [..., None, True])
@pytest.mark.parametrize("loser", ["1", f"{TURN}/1", "acme:chat~01HF7YAT11111"])
@pytest.mark.parametrize("kind", [..., "preference"])
def test_a_preference_names_the_answer_it_is_over(value, loser, kind):
    record = decode(value=value, preferred_over=loser, kind=kind, choice=2)
    assert (record.kind, record.preferred_over, record.choice) == ("preference", loser, 2)
    assert (record.boolean, record.number, record.content) == (None, None, None)


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
        {"inference_id": f"{TURN}!t"},
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
        {"kind": "opinion"},
        {"kind": 1},
        {"kind": "boolean", "value": 1},
        {"kind": "number", "value": True},
        {"kind": "number", "value": "4"},
        {"kind": "category", "value": 1},
        {"kind": "comment", "value": True},
        {"kind": "demonstration", "value": None},
        {"kind": "preference"},
        {"kind": "comment", "value": "x", "preferred_over": "1"},
        {"preferred_over": "1", "value": False},
        {"preferred_over": "1", "value": "better"},
        {"preferred_over": "0"},
        {"preferred_over": f"{TURN}/0"},
        {"preferred_over": "128"},
        {"preferred_over": ""},
        {"preferred_over": "other:chat~01HF7YAT00000"},
        {"preferred_over": "acme:other~01HF7YAT00000"},
        {"preferred_over": "acme:chat"},
        {"inference_id": ..., "episode_id": "acme:chat", "preferred_over": "1", "value": ...},
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
        b'{"value": "\xff"}',
        b'{"value": "\\ud800"}',
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


RECORD = events.Feedback(
    feedback_id=f"{TURN}!t", interaction_id=TURN, event_time_ms=9, metric="thumbs", boolean=True
)
CHANGES = {
    "feedback_id": f"{TURN}!u",
    "interaction_id": None,
    "session_id": "acme:chat",
    "choice": 1,
    "tenant": "acme",
    "kind": "boolean",
    "metric": "stars",
    "boolean": False,
    "number": 1.0,
    "category": "good",
    "preferred_over": "1",
    "action": "retract",
    "replaces": f"{TURN}!s",
    "source": "implicit",
    "grader": "judge",
    "user": "somebody",
    "tags": {"a": "b"},
    "content": events.FeedbackContent(text="x"),
}
REPEATED = {"event_time_ms": 10, "principal": "key-7"}


@pytest.mark.parametrize("field", msgspec.structs.fields(events.Feedback), ids=lambda f: f.name)
def test_what_was_said_is_all_but_when_and_by_which_key(field):
    changed = (CHANGES | REPEATED)[field.name]
    other = msgspec.structs.replace(RECORD, **{field.name: changed})
    assert other != RECORD
    same = feedback_json.same(other) == feedback_json.same(RECORD)
    assert same == (field.name in REPEATED)


MEANT = ("feedback_id", "interaction_id", "session_id", "tenant", "action", "replaces")


@pytest.mark.parametrize("field", msgspec.structs.fields(events.Feedback), ids=lambda f: f.name)
def test_a_retraction_says_what_it_takes_back_and_no_more(field):
    retraction = events.Feedback(
        feedback_id=f"{TURN}!r",
        interaction_id=TURN,
        event_time_ms=9,
        action="retract",
        replaces=f"{TURN}!t",
    )
    changed = (CHANGES | REPEATED | {"action": "set"})[field.name]
    other = msgspec.structs.replace(retraction, **{field.name: changed})
    assert other != retraction
    same = feedback_json.same(other) == feedback_json.same(retraction)
    assert same == (field.name not in MEANT)


def test_what_was_said_does_not_hang_on_the_order_of_tags():
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert feedback_json.same(decode_tags(one)) == feedback_json.same(decode_tags(other))
    assert len(feedback_json.same(RECORD)) == 16


def decode_tags(tags):
    return msgspec.structs.replace(RECORD, tags=tags)
