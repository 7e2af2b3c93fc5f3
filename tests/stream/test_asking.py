"""Records of a schema that nobody knows: how often ``schemas`` is asked, and what is decoded."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import events, schemas, topics
from tailrace.errors import UnknownSchema
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryLog
from tailrace.stream import SCHEMAS_ASKED, Decoder, read_all
from tailrace.wire import MARKER, Wire

BODY = Wire().encode(events.Alarm(stream="s", event_time_ms=1))[10:]


def later(writer: int) -> tuple[bytes, bytes]:
    """The schema of a writer of tomorrow, and an alarm by it."""
    schema = schemas.derive(events.Alarm)
    schema["fields"].append({"name": f"later{writer}", "type": ["null", "string"], "default": None})
    return json.dumps(schema).encode(), MARKER + schemas.fingerprint(schema) + BODY + b"\x02\x02x"


class Scene:
    """A log in memory, and a decoder on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.log = MemoryLog()
        self.log.create(topics.TOPICS, session_partitions=1)
        self.producer = self.log.producer()
        self.decoder = Decoder(self.log, Wire(), clock=lambda: self.now_s)
        self._began = SCHEMAS_ASKED._value.get()

    @property
    def asked(self) -> float:
        return SCHEMAS_ASKED._value.get() - self._began

    def publish(self, writer: int) -> None:
        self.producer.append("schemas", later(writer)[0], key=b"%d" % writer)

    def write(self, writer: int = 0, count: int = 1) -> None:
        for _ in range(count):
            self.producer.append("alarms", later(writer)[1])

    def records(self) -> list[LogRecord]:
        return list(read_all(self.log, "alarms"))

    def known(self, record: LogRecord) -> bool:
        try:
            return self.decoder.decode(record) == events.Alarm(stream="s", event_time_ms=1)
        except UnknownSchema:
            return False


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_all_records_that_lie_there_ask_once(scene: Scene) -> None:
    scene.write(0, 500)
    scene.write(1, 500)
    ends, heard = scene.log.ends, []
    scene.log.ends = lambda topic: heard.append(topic) or ends(topic)  # type: ignore[method-assign, func-returns-value]
    assert not any(scene.known(record) for record in scene.records())
    assert scene.asked == 1
    assert heard.count("schemas") == 1


def test_who_published_first_is_known_at_once(scene: Scene) -> None:
    scene.write(0, 3)
    assert not any(scene.known(record) for record in scene.records())
    scene.publish(1)
    scene.write(1)
    assert [scene.known(record) for record in scene.records()[-1:]] == [True]
    assert scene.asked == 2


def test_who_is_late_is_known_a_moment_later(scene: Scene) -> None:
    scene.write(0, 4)
    first, second, third, fourth = scene.records()
    assert not scene.known(first)
    scene.publish(0)
    assert not scene.known(second)
    assert scene.known(second)  # a second time asks
    scene.publish(1)
    scene.write(1, 2)
    assert scene.known(third) and scene.known(fourth)


def test_a_crowd_of_strangers_asks_ten_times_a_second(scene: Scene) -> None:
    scene.write(0, 1000)
    for record in scene.records():
        scene.known(record)
        scene.now_s += 0.001
    assert 10 <= scene.asked <= 11


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2)),
        st.tuples(st.just("publish"), st.integers(0, 2)),
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.sampled_from([0.03, 0.1, 1.0])),
    ),
    max_size=40,
)


@given(ACTS)
def test_whatever_comes_when_what_must_be_known_is(acts: list[tuple[str, float]]) -> None:
    """A schema that was there before its record, or for a tenth of a second, or when a record is
    read again, is known; and one that nobody published never is."""
    scene = Scene()
    published: dict[int, tuple[float, int]] = {}
    writers: list[int] = []
    place = 0
    for act, given_ in acts:
        number = int(given_)
        if act == "write":
            scene.write(number)
            writers.append(number)
        elif act == "publish":
            scene.publish(number)
            published.setdefault(number, (scene.now_s, len(writers)))
        elif act == "wait":
            scene.now_s += given_
        else:
            for record in scene.records()[place : place + number]:
                when_s, before = published.get(writers[place], (float("inf"), 1 << 60))
                known = scene.known(record)
                if before <= place or scene.now_s - when_s > 0.1 + 1e-9:
                    assert known
                if before > len(writers):
                    assert not known
                assert known or scene.known(record) == (before <= len(writers))
                place += 1
