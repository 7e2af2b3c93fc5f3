"""Ten thousand bad bodies: each is a record that Avro takes too, or an InvalidRecord."""

from __future__ import annotations

from collections import Counter
import json

import pytest

from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.wire import Wire
from tests.wire import fuzz

BINARY = {
    "content-type": b"application/json",
    "ce_id": b"order 7",
    "ce_source": b"/shop",
    "ce_subject": fuzz.TURN.encode(),
    "ce_time": b"2026-11-20T12:00:00Z",
}
STRUCTURED = {"content-type": b"application/cloudevents+json"}


def test_a_body_is_a_record_or_invalid():
    wire, seen = Wire(), Counter[str]()
    for body in fuzz.bodies(10_000):
        try:
            record = wire.decode(events.Feedback, body, BINARY, time_ms=9)
        except InvalidRecord as error:
            seen[error.reason] += 1
            continue
        seen["taken"] += 1
        assert wire.decode(events.Feedback, wire.encode(record)) == record
    assert seen["taken"] > 1000
    for reason in ("json", "id", "value", "subject", "kind", "preferred_over", "action"):
        assert seen[reason], reason


@pytest.mark.parametrize("packed", [True, False])
def test_an_envelope_around_anything_is_a_record_or_invalid(packed):
    wire, taken = Wire(), 0
    envelope = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "t"}
    for seed, body in enumerate(fuzz.bodies(1000, seed=1)):
        if packed:
            value = json.dumps(envelope).encode()[:-1] + b', "data": ' + body + b"}"
        else:
            value = body.replace(b"metric_name", b"specversion").replace(b"thumbs", b"1.0")
        try:
            record = wire.decode(events.Feedback, value, STRUCTURED, time_ms=seed)
        except InvalidRecord:
            continue
        taken += 1
        assert wire.decode(events.Feedback, wire.encode(record)) == record
    assert bool(taken) == packed
