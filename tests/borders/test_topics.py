"""The table of topics holds together, and says what DESIGN section 3 says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tailrace import events, topics
from tailrace.topics import TOPICS, Topic


def test_names_are_unique_and_legal():
    names = [topic.name for topic in TOPICS]
    assert len(set(names)) == len(names)
    for name in names:
        assert name and set(name) <= set("abcdefghijklmnopqrstuvwxyz-")


def test_the_table_holds_every_topic_of_its_module():
    assert {id(t) for t in vars(topics).values() if isinstance(t, Topic)} == {id(t) for t in TOPICS}


def test_a_full_name_leads_back_to_its_row():
    for topic in TOPICS:
        for prefix in ("", "replay-1."):
            assert topics.by_name(topics.named(topic, prefix), prefix) is topic
        with pytest.raises(KeyError):
            topics.by_name(topic.name, "other.")


def test_every_record_has_one_topic():
    carried = [topic.record for topic in TOPICS if topic.record]
    assert len(set(carried)) == len(carried)
    assert set(carried) == set(events.RECORDS)


def test_session_topics_are_those_of_the_design():
    by_session = {t.name for t in TOPICS if t.by_session}
    assert by_session == {"prompts", "outputs", "feedback", "trajectories", "receipts", "ticks"}
    for topic in TOPICS:
        assert topic.partitions(12) == (12 if topic.by_session else 1)


def test_what_is_kept_for_ever():
    ever = {t.name for t in TOPICS if t.cleanup == "delete" and t.config()["retention.ms"] == "-1"}
    assert ever == {"steps", "model-updates", "model-chunks", "releases", "control"}
    assert [t.name for t in TOPICS if t.cleanup == "compact"] == ["schemas"]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_the_broker_is_told_what_all_rely_on(topic):
    config = topic.config()
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert int(config["max.message.bytes"]) == topics.MAX_RECORD_BYTES == 8 * 1024 * 1024
    assert ("retention.ms" in config) == (topic.cleanup == "delete")
    wanted = "uncompressed" if topic is topics.MODEL_CHUNKS else "producer"
    assert config["compression.type"] == wanted


def test_the_page_of_topics_has_every_row():
    """docs/topics.md, row by row in the order of the table."""
    from tests.borders.test_imports import ROOT

    page = (ROOT / "docs/topics.md").read_text()
    places = []
    for topic in TOPICS:
        record = topic.record.__name__ if topic.record else "raw bytes"
        days = (topic.retention_ms or 0) // topics.DAY_MS
        kept = "compact" if topic.cleanup == "compact" else f"{days} d" if days else "for ever"
        count = "session" if topic.by_session else "1"
        row = f"| {topic.name} | {record} | {topic.key} | {count} | {kept} |"
        assert row in page, row
        places.append(page.index(row))
    assert all(a < b for a, b in pairwise(places))
