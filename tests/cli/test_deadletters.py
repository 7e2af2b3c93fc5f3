"""``tailrace dead-letters``: what could not be used, listed and brought back."""

from __future__ import annotations

import json

import pytest

from tailrace import cli, deadletters, topics
from tailrace.errors import SettingsError
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


@pytest.fixture
def letters() -> MemoryLog:
    """Three: JSON, bytes, and one of headers that move a terminal."""
    log = MemoryLog(lambda: 1_700_000_000_000)
    log.create(topics.TOPICS, session_partitions=1)
    producer = log.producer()
    writer = Writer(producer, Wire())
    headers = {"content-type": b"application/json", "traceparent": b"\x1b[2J\xff"}
    for value in (b'{"value":\n true}', b"\xff\x00" * 3000, None):
        producer.append("feedback", value, key=b"default:s", headers=headers)
    for record in read_all(log, "feedback"):
        writer.bury(record, "not_avro", "no marker \x1b[2J")
    return log


def test_one_is_shown_with_all_that_is_known_of_it(
    letters: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _letters(letters, "show", "0") == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())
    assert said.splitlines() == [
        "dead-letters/0/0, 2023-11-14 22:13:20",
        "reason  not_avro: no marker  [2J",
        "from    feedback/0/0",
        "key     default:s",
        "header  content-type: application/json",
        "header  traceparent:  [2J\ufffd",
        "16 bytes",
        '  {"value":',
        "   true}",
    ]
    assert _letters(letters, "show", "1") == 0
    said = capsys.readouterr().out
    assert "6000 bytes" in said and "and 1904 bytes more" in said
    assert said.count("ff00") == 2048
    assert _letters(letters, "show", "2") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 bytes"
    assert _letters(letters, "show", "1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["hex"] == "ff00" * 3000
    assert (document["reason"], document["source"]) == ("not_avro", "feedback/0/1")


def test_one_is_brought_back(letters: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert _letters(letters, "replay", "0") == 0
    assert "1 records appended again" in capsys.readouterr().out
    *_, last = read_all(letters, "feedback")
    assert last.value == b'{"value":\n true}'


def test_one_that_is_not_there_is_said(letters: MemoryLog) -> None:
    for offset in ("3", "99"):
        with pytest.raises(ValueError, match=f"no dead letter at offset {offset}: .* 0 to 2"):
            _letters(letters, "show", offset)
    letters.delete_before("dead-letters", {0: 3})
    with pytest.raises(ValueError, match="at offset 0: there is none"):
        _letters(letters, "replay", "0")
    for words in (["show"], ["list", "0"], ["replay", "0", "--reason", "x"]):
        with pytest.raises(SettingsError):
            _letters(letters, *words)
