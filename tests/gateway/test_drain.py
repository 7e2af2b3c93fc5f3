"""The way from the spool to Kafka: the feedback of a session keeps its order, whatever fails."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from services.gateway import drain
from services.gateway.link import Link
from services.gateway.spool import Row
from tailrace import events, topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.log.base import Position

TURN = "default:s~0000000000000"


def row(number, session="default:s"):
    """A feedback of a session; without one a prompt."""
    if session is None:
        record = events.Prompt(interaction_id=TURN, session_id="default:s", event_time_ms=number)
        return Row(number, topics.PROMPTS, record)
    subject = TURN if session == "default:s" and number % 2 else session
    record = events.Feedback(
        feedback_id=f"{subject}!{number}", session_id=session, event_time_ms=number
    )
    return Row(number, topics.FEEDBACK, record)


class Failing:
    """A writer that fails chosen numbers by their delivery report and takes what comes behind."""

    def __init__(self, failing, error=None):
        self.failing = set(failing)
        self.error = error or LogError("timed out")
        self.taken: list[int] = []
        self.producer = None

    def write(self, topic, record, *, key=None, traceparent=None):
        done: Future[Position] = Future()
        if record.event_time_ms in self.failing:
            done.set_exception(self.error)
        else:
            self.taken.append(record.event_time_ms)
            done.set_result(Position(0, len(self.taken)))
        return done


def send(writer, rows):
    """One round of the drain: the numbers that are still to be sent afterwards."""

    async def send():
        link = Link(lambda: writer)
        await link.open()
        return await drain.append(link, rows)

    acked = {
        row.number
        for row, result in asyncio.run(send())
        if isinstance(result, Position | InvalidRecord)
    }
    return [row for row in rows if row.number not in acked]


def test_nothing_overtakes_what_failed():
    rows = [row(1), row(2), row(3, "default:t"), row(4), row(5, None), row(6, "default:t")]
    writer = Failing({1})
    left = send(writer, rows)
    assert [r.number for r in left] == [1, 2, 4]
    assert sorted(writer.taken) == [3, 5, 6]
    writer.failing = set()
    assert send(writer, left) == []
    assert writer.taken[3:] == [1, 2, 4]


def test_what_is_never_taken_holds_nothing_up():
    writer = Failing({1}, InvalidRecord("too_large", "too large"))
    assert send(writer, [row(1), row(2)]) == []
    assert writer.taken == [2]


def test_a_round_takes_as_many_waves_as_a_session_has_feedback():
    rows = [row(n, f"default:s{n % 50}") for n in range(200)]
    assert [len(wave) for wave in drain.waves(rows)] == [50] * 4
    assert [len(wave) for wave in drain.waves([row(n, None) for n in range(200)])] == [200]
    assert drain.waves([]) == []


@given(
    st.lists(st.sampled_from([None, "default:s", "default:t", "default:u"]), max_size=20),
    st.lists(st.sets(st.integers(0, 19)), max_size=5),
)
def test_each_session_in_its_order_over_failing_rounds(sessions, rounds):
    rows = [row(number, session) for number, session in enumerate(sessions)]
    writer = Failing(())
    for failing in [*rounds, set()]:
        writer.failing = failing
        rows = send(writer, rows)
    assert sorted(writer.taken) == list(range(len(sessions)))
    for session in {s for s in sessions if s is not None}:
        own = [n for n in writer.taken if sessions[n] == session]
        assert own == sorted(own)
