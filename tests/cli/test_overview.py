"""``tailrace topics`` and ``tailrace lag``: what lies on the log, and who is how far behind it."""

from __future__ import annotations

import json
from pathlib import Path
import re

from confluent_kafka import admin
import pytest

from tailrace import cli, events, inventory, lag, topics
from tailrace.log.kafka import KafkaLog
from tailrace.log.memory import MemoryLog
from tailrace.settings import Common
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire
from tests.borders.test_imports import ROOT
from tests.cli.river import SESSION, River
from tests.engine.models import MODEL


def lags(river: River, committed: lag.Committed) -> dict[tuple[str, str], lag.Lag]:
    found = lag.gather(river.log, river.common, committed, now_ms=river.now_ms)
    return {(one.reader, one.topic): one for one in found}


def test_a_group_is_behind_by_what_it_has_not_taken(river: River) -> None:
    river.ask("a", "b")
    asked_ms = river.now_ms
    river.ask("c", "d")
    river.now_ms += 5_000
    found = lags(
        river,
        {
            "tailrace-rewards": {("prompts", 0): 1, ("outputs", 0): 2, ("other", 0): 7},
            "tailrace-graders-a": {("outputs", 0): 0},
        },
    )
    assert list(found) == [
        ("tailrace-graders-a", "outputs"),
        ("tailrace-rewards", "prompts"),
        ("tailrace-rewards", "outputs"),
    ]
    one = found["tailrace-rewards", "prompts"]
    assert (one.committed, one.end, one.lag, one.lost, one.behind_s) == (1, 2, 1, 0, 5.0)
    assert found["tailrace-rewards", "outputs"].lag == 0
    assert found["tailrace-rewards", "outputs"].behind_s == 0.0
    slow = found["tailrace-graders-a", "outputs"]
    assert (slow.lag, slow.behind_s) == (2, (river.now_ms - asked_ms) / 1000)
    words = "\n".join(lag.in_words(list(found.values())))
    assert re.search(r"tailrace-rewards +prompts +1 +1 +2 +1  5 s", words)


def test_what_expired_before_it_was_taken_is_lost(river: River) -> None:
    for _ in range(3):
        river.ask("a", "b")
    river.log.delete_before("prompts", {0: 2})
    one = lags(river, {"g": {("prompts", 0): 1}})["g", "prompts"]
    assert (one.lag, one.lost) == (1, 1)
    assert "1 expired unread" in lag.in_words([one])[1]


def test_marks_of_transactions_keep_nobody_waiting(river: River) -> None:
    river.train(0)
    assert river.log.ends("model-updates") == {0: 2}
    one = lags(river, {"g": {("model-updates", 0): 1}})["g", "model-updates"]
    assert (one.lag, one.behind_s) == (0, 0.0)


def test_the_trainers_own_offsets_are_those_of_its_version(river: River) -> None:
    river.train(0)
    for token in ("a", "b"):
        river.say(river.ask("a", "b"), token, True)
    river.settle()
    reader = (f"trainer of {MODEL}", "trajectories")
    assert lags(river, {})[reader].lag == 2
    river.train(1, 0)
    one = lags(river, {})[reader]
    assert (one.committed, one.end, one.lag, one.behind_s) == (2, 2, 0, 0.0)
    river.say(river.ask("a", "b"), "c", True)
    river.settle()
    river.now_ms += 7_000
    one = lags(river, {})[reader]
    assert (one.lag, one.behind_s) == (1, 7.0)


def test_what_a_version_holds_back_is_not_taken(river: River) -> None:
    river.train(0)
    for token in ("a", "b"):
        river.say(river.ask("a", "b"), token, True)
    river.settle()
    river.train(1, 0, held=[0])
    one = lags(river, {})[f"trainer of {MODEL}", "trajectories"]
    assert (one.committed, one.lag) == (1, 1) and one.behind_s > 0


def test_nobody_is_behind_where_nobody_reads() -> None:
    log = MemoryLog()
    log.create(topics.TOPICS)
    assert lag.gather(log, Common(), {}) == []
    assert "nobody has committed" in lag.in_words([])[0]


def config_of(config: dict[str, dict[str, str]]) -> inventory.Ask:
    """Brokers that have these settings, and are asked of topics that are there alone."""
    return lambda names: {name: config[name] for name in names if name in config}


def test_every_topic_has_a_row_and_a_writer() -> None:
    assert list(inventory.WRITERS) == [topic.name for topic in topics.TOPICS]
    services = {folder.name for folder in (ROOT / "services").iterdir()}
    services |= {"anyone", "people", "every producer", "every consumer"}
    assert all({*names.split(", ")} <= services for names in inventory.WRITERS.values())
    log = MemoryLog()
    log.create(topics.TOPICS, prefix="p.", session_partitions=4)
    rows = inventory.gather(log, "p.")
    assert [row.topic for row in rows] == list(inventory.WRITERS)
    assert not any(row.problems for row in rows)
    assert inventory.in_words(rows)[-1] == "all are there, with the right settings"
    config = {topics.named(topic, "p."): topic.config() for topic in topics.TOPICS}
    assert inventory.gather(log, "p.", config_of(config)) == rows


def test_what_is_not_as_it_should_be_is_said() -> None:
    log = MemoryLog()
    some = [t for t in topics.TOPICS if t not in (topics.ALARMS, topics.FEEDBACK)]
    log.create(some, session_partitions=4)
    log.create([topics.FEEDBACK], session_partitions=2)
    log._retentions_ms["steps"] = topics.DAY_MS
    log._retentions_ms["prompts"] = topics.DAY_MS  # that is anybody's choice
    config = {topic.name: topic.config() for topic in some}
    config["outputs"] |= {"message.timestamp.type": "CreateTime", "max.message.bytes": "1048588"}
    config["prompts"] |= {"max.message.bytes": str(16 * 1024 * 1024)}
    rows = inventory.gather(log, "", config_of(config))
    problems = {row.topic: row.problems for row in rows if row.problems}
    assert problems == {
        "outputs": [
            "message.timestamp.type is CreateTime, must be LogAppendTime",
            "max.message.bytes is 1048588, must be 8388608",
        ],
        "feedback": ["has 2 partitions, must have 4 as the other topics of sessions"],
        "steps": ["is kept 1 d, must be kept for ever"],
        "alarms": ["is not there"],
    }
    assert "alarms: is not there" in inventory.in_words(rows)


@pytest.mark.kafka
def test_topics_and_lag_on_a_broker(  # type: ignore[no-untyped-def]
    broker, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--kafka", broker.bootstrap, "--prefix", prefix)
    assert cli.main(["topics", *where]) == 1
    assert "prompts: is not there" in capsys.readouterr().out
    log = KafkaLog(broker.bootstrap)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=2)
    publish_schemas(log, prefix=prefix)
    assert cli.main(["topics", *where]) == 0
    assert "all are there, with the right settings" in capsys.readouterr().out
    assert cli.main(["topics", "--json", *where]) == 0
    rows = {row["topic"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["prompts"]["partitions"], rows["prompts"]["kept_ms"]) == (2, 30 * topics.DAY_MS)
    assert (rows["steps"]["kept_ms"], rows["schemas"]["compacted"]) == (None, True)
    assert rows["schemas"]["offsets"] == len(events.RECORDS)

    producer = log.producer()
    writer = Writer(producer, Wire(), prefix=prefix)
    for token in "abc":
        record = events.Feedback(
            feedback_id=f"{SESSION}!{token}", session_id=SESSION, event_time_ms=1
        )
        at = writer.write(topics.FEEDBACK, record).result(10)
    for group in (f"{prefix}tailrace-graders-g", f"another-{prefix}"):
        consumer = log.consumer(group=group)
        consumer.commit(f"{prefix}feedback", {at.partition: at.offset})
        consumer.close()
    assert cli.main(["lag", "--json", *where]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["reader"], one["topic"]) == (f"{prefix}tailrace-graders-g", "feedback")
    assert (one["committed"], one["end"], one["lag"]) == (at.offset, at.offset + 1, 1)
    assert 0 <= one["behind_s"] < 60
    assert cli.main(["lag", *where]) == 0
    assert "tailrace-graders-g" in capsys.readouterr().out

    name = f"{prefix}alarms"
    change = admin.ConfigEntry(
        "retention.ms", "1000", incremental_operation=admin.AlterConfigOpType.SET
    )
    stamps = admin.ConfigEntry(
        "message.timestamp.type", "CreateTime", incremental_operation=admin.AlterConfigOpType.SET
    )
    resource = admin.ConfigResource(
        admin.ResourceType.TOPIC, name, incremental_configs=[change, stamps]
    )
    client = admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    client.incremental_alter_configs([resource])[resource].result(10)
    assert cli.main(["topics", *where]) == 1
    assert "alarms: message.timestamp.type is CreateTime" in capsys.readouterr().out
    producer.close()
    log.close()
