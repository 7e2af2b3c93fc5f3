"""What is read, from where, and what a log that fails or lies does to it."""

from __future__ import annotations

import json
from pathlib import Path
import threading
import time
from typing import Any

import pytest

from services.dashboard.board import READ, Board
from services.dashboard.feed import Feed
from services.dashboard.places import REWARDS, Places
from services.dashboard.reader import Reader
from services.dashboard.settings import Settings
from tailrace import events, schemas, topics
from tailrace.errors import LogError, SettingsError
from tailrace.log.base import Log, LogRecord
from tailrace.log.memory import MemoryConsumer, MemoryLog
from tailrace.weights.trust import Signer, new_key
from tailrace.wire import Wire
from tests.dashboard.life import MODEL, Life, picture, reader_of
from tests.local.until import until


def rows(found: Any) -> dict[str, Any]:
    return {row["topic"]: row for row in found["traffic"]["topics"]}


def test_it_reads_as_far_back_as_it_is_told_and_versions_from_their_beginning() -> None:
    life = Life()
    life.learn(1.0, 1)
    life.now_ms += 7_200_000
    life.learn(1.0, 2)
    found = picture(reader_of(life))
    assert rows(found)["feedback"]["records"] == 1
    assert found["versions"]["published"] == 3 and found["training"]["steps"] == 2
    assert found["account"]["balanced"] and found["account"]["lines"][1]["records"] == 1
    assert found["account"]["before"] == 0


def test_a_receipt_of_what_came_before_is_not_of_the_account() -> None:
    life = Life()
    name, at = life.say(life.ask())
    life.now_ms += 7_200_000
    life.receipt(at, name, "joined")
    account = picture(reader_of(life))["account"]
    assert account["before"] == 1 and account["balanced"]
    assert account["lines"][1]["records"] == 0


def test_where_there_is_too_much_all_topics_begin_later() -> None:
    life = Life()
    for _ in range(8):
        life.answer(life.ask())
        life.now_ms += 450_000
    found = rows(picture(reader_of(life, history_records=3)))
    assert found["prompts"]["records"] == found["outputs"]["records"] == 2  # halved twice


def test_a_second_reading_goes_on_where_the_first_ended() -> None:
    life = Life()
    life.learn(1.0, 1)
    reader = reader_of(life)
    life.learn(1.0, 2)
    reader.catch_up()
    found = picture(reader)
    assert rows(found)["receipts"]["records"] == 4 and rows(found)["model-updates"]["records"] == 3
    assert found["latency"]["samples"] == 2


def test_foreign_bytes_are_counted_and_nothing_dies() -> None:
    life = Life()
    unknown = b"\xc3\x01" + bytes(range(8)) + b"x"
    for topic in READ:
        for value in (b"", b"\xc3\x01", unknown, b"<script>alert(1)</script>", None):
            life.producer.append(
                topic.name, value, key=b"default:s", headers={"ce_source": b"\xff"}
            )
    life.learn(1.0, 1)
    found = picture(reader_of(life))
    assert rows(found)["prompts"]["unreadable"] == rows(found)["receipts"]["unreadable"] == 5
    assert rows(found)["dead-letters"]["unreadable"] == 0
    assert found["latency"]["samples"] == 1 and found["account"]["lines"][1]["in_flight"] == 5


def test_a_topic_that_is_not_there_yet_is_said_and_read_once_it_is() -> None:
    log = MemoryLog()
    made = [topic for topic in topics.TOPICS if topic is not topics.ALARMS]
    log.create(made, session_partitions=1)
    board, feed, stop = Board(Settings()), Feed(), threading.Event()
    places = Places(
        log, READ, prefix="", every_s=0.01, graders=board.graders, now_ms=lambda: 10**12
    )
    settings = Settings(refresh_s=0.01)
    reader = Reader(settings, log, board, feed, places, now_ms=lambda: 10**12)
    threads = [threading.Thread(target=work.run, args=[stop]) for work in (reader, places)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: reader.caught_up and "traffic" in picture(reader), "the start")
        assert rows(picture(reader))["alarms"]["missing"]
        log.create([topics.ALARMS])
        log.producer().append("alarms", b"x")
        until(lambda: rows(picture(reader))["alarms"]["unreadable"] == 1, "the new topic")
        assert not rows(picture(reader))["alarms"]["missing"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Failing(MemoryLog):
    """A log that can go away."""

    away = False

    def _partitions(self, topic: str) -> Any:
        if self.away:
            raise LogError("no broker answers")
        return super()._partitions(topic)


def test_a_broker_that_goes_away_is_said_and_reading_goes_on_after_it() -> None:
    log = Failing()
    life = Life(log)
    life.learn(1.0, 1)
    board, feed, stop = Board(Settings()), Feed(), threading.Event()
    now_ms = lambda: life.now_ms  # noqa: E731
    places = Places(log, READ, prefix="", every_s=0.01, graders=board.graders, now_ms=now_ms)
    reader = Reader(Settings(refresh_s=0.01), log, board, feed, places, now_ms=now_ms)
    threads = [threading.Thread(target=work.run, args=[stop]) for work in (reader, places)]
    for thread in threads:
        thread.start()
    try:
        until(
            lambda: reader.caught_up and picture(reader)["traffic"]["broker"] is None, "the start"
        )
        log.away = True
        until(lambda: picture(reader)["traffic"]["broker"] == "no broker answers", "its absence")
        log.away = False
        life.learn(1.0, 2)
        until(lambda: picture(reader)["latency"]["samples"] == 2, "what came since")
        until(lambda: picture(reader)["traffic"]["broker"] is None, "its return")
        assert rows(picture(reader))["feedback"]["records"] == 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Leaving(Failing):
    """A log that goes away as soon as it has given alarms."""

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> MemoryConsumer:
        consumer = super().consumer(group=group, committed_only=committed_only)
        poll = consumer.poll

        def given(timeout_s: float, max_records: int = 500) -> list[LogRecord]:
            records = poll(timeout_s, max_records)
            self.away |= any(record.topic == "alarms" for record in records)
            return records

        consumer.poll = given  # type: ignore[method-assign]
        return consumer


def alarm_of_later() -> tuple[bytes, bytes]:
    """An alarm by a schema that this distribution does not have, and the schema."""
    schema = schemas.newest("Alarm")
    later = {**schema, "fields": [*schema["fields"], {"name": "x", "type": "long", "default": 0}]}
    body = Wire().encode(events.Alarm(stream="reward", event_time_ms=1))[10:] + b"\x00"
    return b"\xc3\x01" + schemas.fingerprint(later) + body, json.dumps(later).encode()


def test_a_log_that_fails_in_the_middle_of_a_batch_loses_nothing() -> None:
    log = Leaving()
    life = Life(log)
    reader = reader_of(life)
    value, schema = alarm_of_later()
    life.producer.append("schemas", schema)
    life.producer.append("alarms", value)
    for _ in range(3):
        life.writer.write(topics.ALARMS, events.Alarm(stream="length", event_time_ms=1))
    for _ in range(2):
        with pytest.raises(LogError):
            reader.catch_up()
    log.away = False
    reader.catch_up()
    found = picture(reader)
    assert rows(found)["alarms"]["records"] == found["alarms"]["fired"] == 4
    assert rows(found)["alarms"]["unreadable"] == 0 and found["traffic"]["behind"] == 0


def test_without_the_topic_of_schemas_what_nobody_knows_is_unreadable() -> None:
    log = MemoryLog()
    log.create([topic for topic in topics.TOPICS if topic is not topics.SCHEMAS])
    log.producer().append("alarms", alarm_of_later()[0])
    board, now_ms = Board(Settings()), lambda: 10**12
    places = Places(log, READ, prefix="", every_s=1.0, graders=board.graders, now_ms=now_ms)
    reader = Reader(Settings(), log, board, Feed(), places, now_ms=now_ms)
    reader.catch_up()
    assert rows(picture(reader))["alarms"]["unreadable"] == 1


def test_a_manifest_that_no_trusted_key_signed_is_none(tmp_path: Path) -> None:
    life = Life()
    for name in ("ours", "theirs"):
        new_key(tmp_path / name)
    for number, name in ((1, "ours"), (2, "theirs")):
        update = events.ModelUpdate(
            model=MODEL, version=number, created_ms=life.now_ms, digest="d", kind="keyframe"
        )
        value = Wire().encode(update)
        headers = Signer(tmp_path / name).headers(value)
        life.producer.append("model-updates", value, key=MODEL.encode(), headers=headers)
    found = picture(reader_of(life, trusted_keys=(tmp_path / "ours.pub",)))
    assert (found["versions"]["published"], found["versions"]["head"]) == (1, 1)
    drops = {row["reason"]: row["count"] for row in found["traffic"]["drops"]}
    refused = "manifest that no trusted key signed"
    assert drops == {f"{refused}: unsigned": 1, f"{refused}: unknown_key": 1}
    assert rows(found)["model-updates"]["unreadable"] == 2
    with pytest.raises(SettingsError):
        reader_of(life, trusted_keys=(tmp_path / "none",))


def test_it_is_ready_once_all_of_it_is_published() -> None:
    life = Life()
    reader = reader_of(life)
    life.learn(1.0, 1)
    again = Reader(
        Settings(),
        life.log,
        Board(Settings()),
        Feed(),
        reader._places,
        now_ms=lambda: life.now_ms,
        clock=lambda: 0.0,  # no second picture within refresh_s
    )
    again._read(threading.Event(), follow=False)
    before = again.caught_up
    again.refresh()
    assert (before, again.caught_up) == (False, True)
    assert picture(again)["training"]["steps"] == 1


class Deaf(MemoryLog):
    """A log that gives no sign of life; any other question would wait for half a minute."""

    def reach(self, timeout_s: float) -> None:
        raise LogError(f"no answer in {timeout_s:g} s")

    def _partitions(self, topic: str) -> Any:
        raise AssertionError("asked for more")


def test_a_broker_is_asked_nothing_long_before_it_gave_a_sign_of_life() -> None:
    places = Places(Deaf(), READ, prefix="", every_s=1.0, graders=tuple, now_ms=int)
    places.ask()
    assert places.known.error == "no answer in 5 s"


class Secretive(MemoryLog):
    """A log whose coordinator of one group does not answer."""

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> MemoryConsumer:
        if group == REWARDS:
            raise LogError("no coordinator")
        return super().consumer(group=group, committed_only=committed_only)


def test_a_group_that_cannot_be_asked_holds_up_nothing_else() -> None:
    log = Secretive()
    life = Life(log)
    life.say(life.ask(), source="grader", grader="judge")
    group = log.consumer(group="tailrace-graders-judge")
    group.commit("outputs", {0: 0})
    reader = reader_of(life)
    reader._places.ask()
    reader.refresh()
    found = picture(reader)
    lags = {(row["consumer"], row["topic"]): row for row in found["lag"]["consumers"]}
    assert found["traffic"]["broker"] is None
    assert lags["grader judge", "outputs"]["records"] == 0
    failed = lags["rewards", "feedback"]
    assert failed["records"] is None and "no coordinator" in failed["source"]


def test_rewards_is_as_far_behind_as_its_group(log: Log, prefix: str) -> None:
    life = Life(log, prefix)
    life.now_ms = time.time_ns() // 1_000_000
    group = log.consumer(group=prefix + REWARDS)
    group.assign({(f"{prefix}feedback", p): 0 for p in range(2)})
    _, at = life.say(life.ask())
    life.say(life.ask())
    group.commit(f"{prefix}feedback", {at.partition: at.offset + 1})
    group.close()
    found = picture(reader_of(life))
    (row,) = [row for row in found["lag"]["consumers"] if row["consumer"] == "rewards"]
    assert (row["topic"], row["records"]) == ("feedback", 1)
    assert rows(found)["feedback"]["records"] == 2
