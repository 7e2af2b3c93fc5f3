"""tailrace audit --follow: the account goes on where it ended, what is in flight shrinks."""

from __future__ import annotations

import json

import pytest

from tailrace import commands, topics
from tailrace.deadline import Deadline
from tailrace.errors import LogError
from tailrace.events import Tick
from tailrace.log.memory import MemoryLog
from tailrace.recount import Reader, in_a_line
from tests.audit.history import MODEL, History, kinds


def reader_of(history: History, log: MemoryLog | None = None) -> Reader:
    deadline = Deadline(ticked_s=60.0)
    return Reader(
        log or history.log,
        history.wire,
        model=MODEL,
        deadline=deadline,
        wall_ms=lambda: history.now_ms,
    )


def test_what_is_in_flight_shrinks_to_nothing() -> None:
    history = History()
    reader = reader_of(history)
    first, second = history.feedback(), history.feedback()
    report = reader.read().report()
    assert (report.feedback.records, report.feedback.in_flight) == (2, 2)
    history.joined(first)
    third = history.feedback()
    report = reader.read().report()
    assert (report.feedback.records, report.feedback.in_flight) == (3, 2)
    for at in (second, third):
        history.joined(at, "late")
    report = reader.read().report()
    assert report.feedback.outcomes == {"joined": 1, "late": 2}
    assert (report.feedback.in_flight, report.ok, report.receipts["repeated"]) == (0, True, 0)
    assert in_a_line(report, 3_661_000) == (
        "01:01:01 head 0; feedback 3 = joined 1 + late 2 + in flight 0 + missing 0; "
        "trajectories 0 = in flight 0 + missing 0; balanced"
    )


def test_a_lost_receipt_is_named_once_its_time_is_over() -> None:
    history = History()
    reader = reader_of(history)
    at = history.feedback()
    assert reader.read().report().ok
    tick = Tick(partition=at.partition, event_time_ms=history.now_ms + 61_000)
    history.writer.write(topics.TICKS, tick, partition=at.partition)
    report = reader.read().report()
    assert kinds(report) == ["no_receipt"]
    assert in_a_line(report, 0).endswith("1 problems")
    history.joined(at)
    assert reader.read().report().ok


def test_versions_are_recounted_as_they_come() -> None:
    history = History()
    reader = reader_of(history)
    places = [history.trajectory() for _ in range(3)]
    assert reader.read().report().trajectories.in_flight == 3
    for version, at in enumerate(places[:2], 1):
        history.step(version, at)
        history.decided(at, version)
        history.version(version, version - 1, {0: (at.offset, at.offset + 1, [])})
        report = reader.read().report()
        assert (report.head, kinds(report)) == (version, [])
        assert report.trajectories.outcomes == {"trained": version}
    assert report.trajectories.in_flight == 1
    history.decided(places[2], 7)
    assert [reader.read().report().receipts["other"] for _ in range(2)] == [1, 1]
    history.log.delete_before("trajectories", {0: 1})
    report = reader.read().report()
    assert (report.trajectories.records, report.trajectories.outcomes) == (2, {"trained": 1})
    assert (report.ok, report.trajectories.in_flight) == (True, 1)


def test_a_round_that_breaks_off_counts_nothing_twice() -> None:
    """Steps are counted, not only seen: read twice, an input would be trained twice."""

    class Failing(MemoryLog):
        left = 1_000_000

        def consumer(self, **options):
            found = super().consumer(**options)
            polled = found.poll

            def poll(timeout_s: float, max_records: int = 500):
                self.left -= 1
                if self.left < 0:
                    raise LogError("the broker went away")
                return polled(timeout_s, 1)

            found.poll = poll
            return found

    history = History()
    history.log.__class__ = Failing
    at = history.trajectory()
    history.step(1, at)
    history.decided(at, 1)
    history.version(1, 0, {0: (0, 1, [])})
    whole = reader_of(history).read().report()
    for polls in range(12):
        reader = reader_of(history)
        history.log.left = polls
        try:
            reader.read()
        except LogError:
            history.log.left = 1_000_000
        assert reader.read().report() == whole
        history.log.left = 1_000_000


@pytest.mark.parametrize("as_json", [False, True])
def test_following_prints_until_it_is_stopped(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History()
    at = history.feedback()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            history.joined(at)
        if len(slept) == 2:
            raise KeyboardInterrupt

    report = commands.follow(reader_of(history), 2.5, as_json=as_json, sleep=sleep)
    assert (report.feedback.outcomes, slept) == ({"joined": 1}, [2.5, 2.5])
    first, second = capsys.readouterr().out.splitlines()
    if as_json:
        assert [json.loads(line)["feedback"]["in_flight"] for line in (first, second)] == [1, 0]
    else:
        assert "feedback 1 = in flight 1 " in first and "joined 1 + in flight 0 " in second


def test_a_broker_that_is_away_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    reader = reader_of(History(), MemoryLog())

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.follow(reader, 1.0, sleep=sleep)
    assert "unknown topic" in capsys.readouterr().err
