"""The trace of a request goes through the join: into its trajectories, however often they are
made, and as links of the join's span."""

from __future__ import annotations

import random

import msgspec
import pytest

from services.rewards import spans
from services.rewards.emission import Send
from tailrace import events
from tailrace.traces import Traces
from tests.rewards.history import Item, Result, read_in_order, read_wildly
from tests.rewards.test_join import SPEC, Story
from tests.traces.receiver import OTHER, TRACE, context_of, receiving

LATE = "00-aaf7651916cd43dd8448eb211c80319a-b7ad6b7169203331-01"


class Traced(Story):
    """A story whose next records carry a trace."""

    trace = ""

    def append(self, kind: str, event: events.Struct, refused: bool = False) -> int:
        offset = super().append(kind, event, refused)
        item = self.logs[kind][offset]
        assert item is not None
        if self.trace:
            headers = {"traceparent": self.trace.encode()}
            record = msgspec.structs.replace(item.record, headers=headers)
            self.logs[kind][offset] = Item(record, event, refused)
        return offset


def story() -> Traced:
    made = Traced()
    made.trace = TRACE
    interaction = made.turn()
    made.trace = OTHER
    made.feedback(interaction, "in-time")
    made.run(8)
    made.trace = LATE
    made.feedback(interaction, "late", boolean=False)
    made.trace = "no trace at all"
    made.turn("default:other")
    made.run(30)
    return made


def sends(result: Result) -> list[Send]:
    """The silent one, the first of the other, and its correction."""
    found = []
    for value in (one for values in result.trajectories.values() for one in values):
        sent = msgspec.msgpack.decode(value)
        record = msgspec.convert(sent["record"], events.Trajectory)
        found.append(Send(record, b"", 0, sent["traceparent"], tuple(sent["links"])))
    return sorted(found, key=lambda sent: len(sent.links))


def test_a_trajectory_has_the_request_s_trace_and_those_of_its_feedback() -> None:
    silent, first, correction = sends(read_in_order(story(), SPEC).result)
    assert (silent.traceparent, silent.links) == ("", ())
    assert (first.traceparent, first.links) == (TRACE, (OTHER,))
    assert (correction.traceparent, correction.links) == (TRACE, (OTHER, LATE))


@pytest.mark.parametrize("seed", range(10))
def test_it_is_the_same_in_any_order_and_after_kills(seed: int) -> None:
    told = story()
    wild = read_wildly(told, SPEC, random.Random(seed)).result
    assert wild == read_in_order(told, SPEC).result


def test_a_join_s_span_lasts_as_long_as_the_wait_and_is_linked_to_all_of_them() -> None:
    with receiving() as receiver:
        traces = Traces("rewards", receiver.url)
        for sent in sends(read_in_order(story(), SPEC).result):
            spans.joined(traces, sent)
        traces.close()
        silent, first, correction = receiver.spans(3)
    assert {s.name for s in (silent, first, correction)} == {"join"} and silent.links == []
    assert first.links == [context_of(TRACE), context_of(OTHER)]
    assert correction.links == [context_of(TRACE), context_of(OTHER), context_of(LATE)]
    assert first.took_ms == 5000.0 and first.attributes["tailrace.reward"] == 1.0
    assert first.attributes["tailrace.trajectory_kind"] == "first"
    assert correction.attributes["tailrace.revision"] == 1
    assert len({silent.trace, first.trace, correction.trace, TRACE[3:35]}) == 4
