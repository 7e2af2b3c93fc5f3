"""``tailrace tail``: what it shows of any record, where it begins, how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import cli, events, topics
from tailrace.log.kafka import KafkaLog
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer, publish_schemas
from tailrace.tail import as_it_is
from tailrace.wire import Wire

JSON = {"content-type": b"application/json"}


@pytest.fixture
def log(found_log: MemoryLog) -> MemoryLog:
    found_log.create(topics.TOPICS, session_partitions=2)
    publish_schemas(found_log)
    return found_log


def alarm(log: MemoryLog, stream: str) -> None:
    record = events.Alarm(stream=stream, event_time_ms=1)
    Writer(log.producer(), Wire()).write(topics.ALARMS, record)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_contains_a_text_is_shown(log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    for stream in ("reward", "Reward.mean", "length"):
        alarm(log, stream)
    assert cli.main(["tail", "alarms", "--filter", "REWARD"]) == 0
    assert [line["key"] for line in lines(capsys)] == ["reward", "Reward.mean"]
    assert cli.main(["tail", "alarms", "--filter", '"stream": "length"', "--events"]) == 0
    assert [line["stream"] for line in lines(capsys)] == ["length"]
    assert cli.main(["tail", "alarms", "--filter", "absent"]) == 0
    assert lines(capsys) == []


def test_where_it_begins(
    found_log: MemoryLog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = [1_000]
    monkeypatch.setattr(found_log, "_clock_ms", lambda: now_ms[0])
    found_log.create(topics.TOPICS, session_partitions=1)
    publish_schemas(found_log)
    alarm(found_log, "old")
    now_ms[0] = 5_000
    alarm(found_log, "new")
    for options, keys in (
        ([], []),
        (["--since", "2000"], ["new"]),
        (["--from-beginning"], ["old", "new"]),
        (["--from-beginning", "--json"], ["old", "new"]),
    ):
        assert cli.main(["tail", "alarms", *options]) == 0
        assert [line["key"] for line in lines(capsys)] == keys
    for options in (["--since", "1h", "--from-beginning"], ["--json", "--events"]):
        with pytest.raises(SystemExit):
            cli.main(["tail", "alarms", *options])


def test_foreign_bytes_are_shown_as_what_they_are(
    log: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    producer = log.producer()
    for value in (b"hello", b"\xff\x00\x01", b"", None, "é".encode() * 200, b"\x1b[2J"):
        producer.append("alarms", value, key=b"\xff")
    alarm(log, "after")
    assert cli.main(["tail", "alarms"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    found = [json.loads(line) for line in out.splitlines()]
    assert [line.get("text", line.get("hex")) for line in found[:4]] == ["hello", "ff0001", "", ""]
    assert (found[4]["text"], found[4]["bytes"]) == ("é" * 128, 400)
    assert found[5]["text"] == "\x1b[2J"
    assert all(line["invalid"]["reason"] for line in found[:6])
    assert found[6]["event"]["stream"] == "after"
    assert cli.main(["tail", "alarms", "--events"]) == 0
    said = capsys.readouterr()
    assert said.err.count("not an event") == 6 and "after" in said.out


def test_letters_keep_their_content_to_themselves(
    log: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    log.producer().append("dead-letters", b"private", headers={"tailrace-reason": b"torn"})
    assert cli.main(["tail", "dead-letters"]) == 0
    (line,) = lines(capsys)
    assert (line["bytes"], "text" in line) == (7, False)


@pytest.mark.parametrize("text", ["\ud800", "\x9b2J", "\u202eabc", "漢\U0001f600"])
def test_any_text_is_a_line_of_json(
    log: MemoryLog, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    body = {
        "feedback_id": "default:s!a",
        "episode_id": "default:s",
        "metric_name": "comment",
        "value": text,
    }
    log.producer().append("feedback", json.dumps(body).encode(), key=b"default:s", headers=JSON)
    assert cli.main(["tail", "feedback"]) == 0
    out = capsys.readouterr().out
    out.encode()
    assert out[:-1].isprintable()
    found = json.loads(out)
    if "event" in found:
        assert found["event"]["content"]["text"] == text


def test_a_time_beyond_all_calendars_is_shown(
    log: MemoryLog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a topic that stamps records with what their writers say."""
    monkeypatch.setattr(log, "_clock_ms", lambda: 10**16)
    alarm(log, "far")
    assert cli.main(["tail", "alarms"]) == 0
    assert lines(capsys)[0]["time"] == str(10**16)


@given(st.binary(max_size=40), st.none() | st.integers(0, 50))
def test_bytes_are_text_or_hex(value: bytes, most: int | None) -> None:
    found = as_it_is(value, most)
    (kind,) = found
    if kind == "hex":
        assert bytes.fromhex(found["hex"]) == value[:most]
    else:
        assert value.startswith(found["text"].encode())
        assert len(value[:most]) - len(found["text"].encode()) < 4


@pytest.mark.kafka
def test_following_ends_with_ctrl_c(broker, prefix: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = KafkaLog(broker.bootstrap)
    log.create([topics.ALARMS, topics.SCHEMAS], prefix=prefix)
    publish_schemas(log, prefix=prefix)
    producer = log.producer()
    producer.append(f"{prefix}alarms", b"foreign").result(10)
    where = ("--kafka", broker.bootstrap, "--prefix", prefix)
    following = subprocess.Popen(
        [sys.executable, "-m", "tailrace.cli", "tail", "alarms", "-f", "--from-beginning", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["text"] == "foreign"
    record = events.Alarm(stream="later", event_time_ms=1)
    Writer(producer, Wire(), prefix=prefix).write(topics.ALARMS, record).result(10)
    assert json.loads(following.stdout.readline())["event"]["stream"] == "later"
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=60) == ("", "")
    assert following.returncode == 0
    producer.close()
    log.close()
