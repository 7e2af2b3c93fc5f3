"""``tailrace dead-letters``: what could not be used, listed and brought back."""

from __future__ import annotations

import json

import pytest

from tailrace import cli, deadletters, topics
from tailrace.log.memory import MemoryLog
from tailrace.settings import Common
from tailrace.stream import Writer, publish_schemas, read_all
from tailrace.wire import Wire


def _letters(log: MemoryLog, *words: str) -> int:
    arguments = cli.parser().parse_args(["dead-letters", *words])
    return deadletters.run(arguments, Common(), log)


def test_dead_letters_are_listed_and_brought_back(capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    log.create(topics.TOPICS, session_partitions=2)
    publish_schemas(log)
    producer = log.producer()
    headers = {"content-type": b"application/json"}
    at = producer.append("feedback", b"{}", key=b"default:s", headers=headers).result()
    (record,) = read_all(log, "feedback")
    writer = Writer(producer, Wire())
    writer.bury(record, "unknown_schema", "fingerprint 00")
    writer.bury(record, "other")
    _letters(log, "list", "--reason", "unknown_schema")
    (letter,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert letter == {
        "offset": 0,
        "reason": "unknown_schema",
        "detail": "fingerprint 00",
        "source": f"feedback/{at.partition}/{at.offset}",
        "bytes": 2,
    }
    _letters(log, "replay", "--reason", "unknown_schema")
    first, second = read_all(log, "feedback")
    assert (second.value, second.key, second.headers, second.partition) == (
        first.value,
        first.key,
        first.headers,
        first.partition,
    )


def test_a_letter_that_was_cut_is_not_brought_back(capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    log.create(topics.TOPICS, session_partitions=2)
    producer = log.producer()
    producer.append("feedback", b"\xff" * (topics.MAX_RECORD_BYTES - 200), key=b"default:s")
    (record,) = read_all(log, "feedback")
    Writer(producer, Wire()).bury(record, "not_avro")
    (letter,) = read_all(log, "dead-letters")
    assert "tailrace-truncated" in letter.headers
    _letters(log, "replay")
    said = capsys.readouterr()
    assert f"left: offset 0 was cut, see feedback/{record.partition}/0" in said.err
    assert "0 records appended again" in said.out
    assert len(list(read_all(log, "feedback"))) == 1
