"""``tailrace.read``: stretches of a topic by time, followed, and as documents."""

from datetime import UTC, datetime
import json

import pytest

import tailrace
from tailrace import events, topics
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.reading import Item, as_document, moment_ms
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire


class Clock:
    now_ms = 1_000


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog(lambda: Clock.now_ms)
    made.create(topics.TOPICS, session_partitions=2)
    publish_schemas(made)
    return made


def _alarms(log: MemoryLog, *times_ms: int) -> None:
    writer = Writer(log.producer(), Wire())
    for time_ms in times_ms:
        Clock.now_ms = time_ms
        writer.write(topics.ALARMS, events.Alarm(stream="reward", event_time_ms=time_ms))


def _times(items: list[Item]) -> list[int]:
    return [record.time_ms for record, _ in items]


def test_a_stretch_by_time(log: MemoryLog) -> None:
    _alarms(log, 1_000, 2_000, 3_000)
    assert _times(list(tailrace.read("alarms", log=log))) == [1_000, 2_000, 3_000]
    assert _times(list(tailrace.read("alarms", log=log, since=2_000))) == [2_000, 3_000]
    assert _times(list(tailrace.read("alarms", log=log, since=1_500, until=2_500))) == [2_000]
    events_read = [event for _, event in tailrace.read("alarms", log=log)]
    assert all(isinstance(event, events.Alarm) for event in events_read)


def test_following_begins_now_and_goes_on(log: MemoryLog) -> None:
    _alarms(log, 1_000)
    seen: list[Item] = []
    items = tailrace.read("alarms", log=log, follow=True, since=1_000)
    seen.append(next(items))
    _alarms(log, 5_000)
    seen.append(next(items))
    assert _times(seen) == [1_000, 5_000]
    stopped = tailrace.read("alarms", log=log, follow=True, stop=lambda: True)
    assert list(stopped) == []


def test_what_cannot_be_read_is_shown_and_does_not_stop_the_rest(log: MemoryLog) -> None:
    log.producer().append("feedback", b"\x00", key=b"default:s").result()
    log.producer().append("dead-letters", b"abc", headers={"tailrace-reason": b"torn"}).result()
    ((_, event),) = tailrace.read("feedback", log=log)
    assert isinstance(event, tailrace.InvalidRecord)
    (letter,) = tailrace.read("dead-letters", log=log)
    document = as_document(letter)
    assert (document["bytes"], document["headers"]) == (3, {"tailrace-reason": "torn"})


def test_documents_are_json_with_tokens_unpacked(log: MemoryLog) -> None:
    content = events.OutputContent(token_ids=pack_ids([5, 6]), logprobs=pack_logprobs([-0.5, -1.0]))
    output = events.Output(
        interaction_id="default:s~0000000000000", event_time_ms=1, content=content
    )
    Writer(log.producer(), Wire()).write(topics.OUTPUTS, output)
    (item,) = tailrace.read("outputs", log=log)
    event = json.loads(json.dumps(as_document(item)))["event"]
    assert event["content"]["token_ids"] == [5, 6]
    assert event["content"]["logprobs"] == [-0.5, -1.0]


def test_moments() -> None:
    noon = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
    assert moment_ms("2026-11-20T12:00", 0) == moment_ms("2026-11-20T12:00Z", 0) == noon
    assert moment_ms(str(noon), 0) == moment_ms(noon, 0) == noon
    assert moment_ms("2h", noon) == moment_ms("-2h", noon) == noon - 7_200_000
    with pytest.raises(ValueError, match="'tomorrow' is no time"):
        moment_ms("tomorrow", 0)


def test_unknown_topics_are_named() -> None:
    with pytest.raises(ValueError, match="there are prompts, outputs"):
        next(tailrace.read("promts"))
