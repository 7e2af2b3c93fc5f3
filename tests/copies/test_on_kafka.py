"""Copies on a real broker: control records, aborted transactions, low watermarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tailrace import events, ids, topics
from tailrace.archive.restoring import Restorer
from tailrace.archive.saving import Saver
from tailrace.archive.shelf import Shelf
from tailrace.export.choice import Choice
from tailrace.export.command import exported
from tailrace.export.source import Source
from tailrace.log.kafka import KafkaLog
from tailrace.replaying.plan import begin, copy_schemas, found
from tailrace.replaying.replayer import Replayer
from tailrace.replaying.stretch import planned
from tailrace.settings import Common
from tailrace.stream import Writer, publish_schemas, read_all
from tailrace.topics import Topic
from tailrace.wire import Wire
from tests.rewards.test_join import Story

OURS = ("tailrace-time-ms",)


def there(log: KafkaLog, topic: Topic, prefix: str) -> list[tuple[Any, ...]]:
    return [
        (
            r.partition,
            r.offset,
            r.key,
            r.value,
            {k: v for k, v in r.headers.items() if k not in OURS},
        )
        for r in sorted(
            read_all(log, prefix + topic.name, committed_only=topic.transactional),
            key=lambda r: (r.partition, r.offset),
        )
    ]


@pytest.mark.kafka
def test_a_replay_an_archive_and_what_comes_back(broker: Any, prefix: str, tmp_path: Path) -> None:
    log = KafkaLog(broker.bootstrap)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=2)
    publish_schemas(log, prefix=prefix)
    story = Story()
    for number in range(30):
        story.feedback(story.turn(f"default:s{number}"), "a")
        story.run(1)
    plain = log.producer()
    writer = Writer(plain, Wire(), prefix=prefix)
    for topic in (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK):
        for item in story.logs[topic.name]:
            assert item is not None
            writer.write(topic, item.event)
    plain.flush()
    inside = log.producer(transactional_id=f"{prefix}inside")
    for number in range(6):
        inside.begin()
        for _ in range(1 + number % 3):
            inside.append(f"{prefix}receipts", b"%d" % number, partition=0, headers={"n": b"1"})
        if number % 3 == 2:
            inside.flush()
            inside.abort()
        else:
            inside.commit()
        plain.append(f"{prefix}receipts", b"between", partition=0)
        plain.flush()
    inside.begin()
    inside.append(f"{prefix}feedback", b"foreign", partition=1)
    inside.commit()
    log.delete_before(f"{prefix}receipts", {0: 3})

    plan = planned(log, prefix, now_ms=2**41)
    begin(log, f"{prefix}again.", plan)
    copy_schemas(log, prefix, f"{prefix}again.")
    done = Replayer(log, plan, f"{prefix}again.").run()
    assert done.records == {"prompts": 30, "outputs": 30, "feedback": 31, "ticks": 0}
    assert found(log, f"{prefix}again.") == (plan, done)

    shelf = Shelf(str(tmp_path / "kept"))
    kept = Saver(log, prefix, shelf).run()
    assert kept.open == kept.lost == []
    Restorer(log, f"{prefix}back.", shelf).run()
    for topic in (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK, topics.RECEIPTS):
        assert there(log, topic, f"{prefix}back.") == there(log, topic, prefix)
        back, was = f"{prefix}back.{topic.name}", f"{prefix}{topic.name}"
        assert log.ends(back) == log.ends(was)
        assert log.starts(back)[0] == log.starts(was)[0] or topic is topics.RECEIPTS
    for producer in (plain, inside):
        producer.close()
    log.close()


@pytest.mark.kafka
def test_processes_share_an_export(broker: Any, prefix: str, tmp_path: Path) -> None:
    log, common = KafkaLog(broker.bootstrap), Common(kafka=broker.bootstrap, prefix=prefix)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=4)
    publish_schemas(log, prefix=prefix)
    producer = log.producer()
    writer = Writer(producer, Wire(), prefix=prefix)
    for number in range(40):
        turn = ids.new_interaction(f"default:s{number}", 1_700_000_000_000)
        writer.write(
            topics.TRAJECTORIES,
            events.Trajectory(
                trajectory_id=str(number), interaction_id=turn, event_time_ms=1, learn=number > 3
            ),
        )
    producer.close()
    source = Source.of(log, common, None, None)
    found = exported(source, Choice(), tmp_path / "set", "jsonl", jobs=2)
    assert (found["read"], found["rows"], found["left_out"]) == (40, 36, {"no_consent": 4})
    files = sorted((tmp_path / "set" / "data").iterdir())
    assert [file.name for file in files] == ["train-00-00000.jsonl", "train-01-00000.jsonl"]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {line["trajectory_id"] for line in lines} == {str(n) for n in range(4, 40)}
    log.close()
