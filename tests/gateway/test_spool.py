"""The spool: order, bounds, what survives."""

from __future__ import annotations

import sqlite3

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from services.gateway.spool import Spool
from tailrace import events, topics
from tailrace.wire import Wire

WIRE = Wire()


def thumb(number, text="x"):
    record = events.Feedback(
        feedback_id=f"default:s!{number}",
        session_id="default:s",
        event_time_ms=number,
        content=events.FeedbackContent(text=text),
    )
    return topics.FEEDBACK, record, f"trace of {number}"


def prompt(number, text="x"):
    record = events.Prompt(
        interaction_id="default:s~0000000000000",
        session_id="default:s",
        event_time_ms=number,
        content=events.PromptContent(messages=text),
    )
    return topics.PROMPTS, record, None


def spool(folder, max_bytes=1_000_000):
    return Spool(folder / "spool.sqlite", WIRE, max_bytes=max_bytes)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.booleans(), max_size=4), max_size=6), st.integers(1, 5))
def test_first_in_first_out_over_restarts(tmp_path_factory, batches, take):
    folder = tmp_path_factory.mktemp("spool")
    given_, got, number = [], [], 0
    for batch in batches:
        one = spool(folder)
        entries = [(thumb if kind else prompt)(number + k) for k, kind in enumerate(batch)]
        number += len(batch)
        assert all(one.put(entries))
        given_ += entries
        rows = one.head(take)
        got += [(row.topic, row.record, row.traceparent) for row in rows]
        one.delete([row.number for row in rows])
        assert (one.records == 0) == (one.bytes == 0)
        one.close()
    one = spool(folder)
    got += [(row.topic, row.record, row.traceparent) for row in one.head(1000)]
    one.close()
    assert got == given_


def test_the_last_fifth_is_for_feedback(tmp_path):
    one = spool(tmp_path, 10_000)
    prompts = [one.put([prompt(n, "x" * 500)])[0] for n in range(20)]
    assert 0 < sum(prompts) < 20 and one.bytes <= 8_000
    kept = [one.put([thumb(n, "x" * 500)])[0] for n in range(20)]
    assert 0 < sum(kept) < 20 and one.bytes <= 10_000
    assert one.put([thumb(1, "x" * 5_000), thumb(2, "")]) == [False, True]
    one.close()


def test_a_batch_is_bounded_in_bytes(tmp_path):
    one = spool(tmp_path)
    one.put([thumb(n, "x" * 1000) for n in range(5)])
    assert len(one.head(10, 2_500)) == 2
    assert len(one.head(10, 10)) == 1
    one.close()


def test_a_broken_row_is_passed_over(tmp_path):
    one = spool(tmp_path)
    one.put([thumb(1)])
    one._database.execute("INSERT INTO spool (topic, value) VALUES ('feedback', X'C301')")
    one._database.execute("INSERT INTO spool (topic, value) VALUES ('nothing', X'C301')")
    one.close()
    one = spool(tmp_path)
    one.put([thumb(2)])
    assert [row.record.event_time_ms for row in one.head(10)] == [1, 2]
    assert one.records == 2
    one.close()


def test_a_spool_from_before_traces_is_read_and_filled(tmp_path):
    database = sqlite3.connect(tmp_path / "spool.sqlite", isolation_level=None)
    database.execute(
        "CREATE TABLE spool ("
        "number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, value BLOB NOT NULL)"
    )
    topic, record, _ = thumb(1)
    database.execute(
        "INSERT INTO spool (topic, value) VALUES (?, ?)", (topic.name, WIRE.encode(record))
    )
    database.close()
    one = spool(tmp_path)
    one.put([thumb(2)])
    assert [(row.record.event_time_ms, row.traceparent) for row in one.head(10)] == [
        (1, None),
        (2, "trace of 2"),
    ]
    one.close()


def test_one_process_at_a_time(tmp_path):
    one = spool(tmp_path)
    with pytest.raises(sqlite3.OperationalError):
        Spool(tmp_path / "spool.sqlite", WIRE, max_bytes=1000, wait_s=0.05)
    one.close()
    spool(tmp_path).close()
