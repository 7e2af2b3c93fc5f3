"""services.drift.merge: one order, whatever order the partitions were fetched in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.drift.merge import Done, Merge
from tailrace.log.base import LogRecord

PLACES = [("a", 0), ("a", 1), ("b", 0)]
LOGS = st.tuples(*(st.lists(st.integers(1, 12), max_size=8) for _ in PLACES))


def record(place, offset, time_ms):
    topic, partition = place
    return LogRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        time_ms=time_ms,
        key=None,
        value=None,
        headers={},
    )


def reads(times, chances):
    """Fetch whole logs record by record, partitions in the order that chance has it."""
    left = {p: list(enumerate(t)) for p, t in zip(PLACES, times, strict=True)}
    while any(left.values()):
        place = chances.draw(st.sampled_from([p for p in PLACES if left[p]]))
        offset, time_ms = left[place].pop(0)
        yield record(place, offset, time_ms), {p for p in PLACES if left[p]}


def order(times, chances, resume=False):
    merge = Merge({place: Done(0, 0) for place in PLACES})
    out = []
    for got, behind in reads(times, chances):
        if got.offset < merge.done[got.topic, got.partition].offset:
            continue
        merge.add(got)
        out += [(ms, r.topic, r.partition, r.offset) for ms, r in merge.ready(0, behind)]
    out += [(ms, r.topic, r.partition, r.offset) for ms, r in merge.ready(10**6, set())]
    return out


@given(LOGS, st.data())
def test_the_order_does_not_depend_on_the_fetching(times, data):
    once, again = order(times, data), order(times, data)
    assert once == again == sorted(once)
    assert len(once) == sum(map(len, times))


@given(LOGS, st.data())
def test_a_restart_anywhere_goes_on_in_the_same_order(times, data):
    whole = order(times, data)
    merge = Merge({place: Done(0, 0) for place in PLACES})
    out = []
    for got, behind in reads(times, data):
        merge.add(got)
        out += [(ms, r.topic, r.partition, r.offset) for ms, r in merge.ready(0, behind)]
        if data.draw(st.booleans()):
            break
    merge = Merge(merge.done)
    for place, own in zip(PLACES, times, strict=True):
        for offset in range(merge.done[place].offset, len(own)):
            merge.add(record(place, offset, own[offset]))
    out += [(ms, r.topic, r.partition, r.offset) for ms, r in merge.ready(10**6, set())]
    assert out == whole


def test_nothing_leaves_while_an_older_record_can_come():
    merge = Merge({place: Done(0, 0) for place in PLACES})
    merge.add(record(("a", 0), 0, 5))
    assert list(merge.ready(100, {("b", 0)})) == []
    merge.add(record(("b", 0), 0, 3))
    assert list(merge.ready(100, {("b", 0)})) == []
    merge.add(record(("b", 0), 1, 5))
    assert [r.topic for _, r in merge.ready(100, {("b", 0)})] == ["b"]
    assert [r.topic for _, r in merge.ready(100, set())] == ["a", "b"]


def test_nothing_leaves_before_it_is_safe():
    merge = Merge({("a", 0): Done(0, 0), ("b", 0): Done(0, 0)})
    merge.add(record(("a", 0), 0, 5))
    assert list(merge.ready(5, set())) == []
    assert len(list(merge.ready(6, set()))) == 1


def test_a_full_partition_waits_but_never_all_of_them():
    merge = Merge({("a", 0): Done(0, 0), ("b", 0): Done(0, 0)})
    for offset in range(3):
        merge.add(record(("a", 0), offset, 5))
    behind = {("a", 0), ("b", 0)}
    assert merge.wanted(3, 0, behind) == {("b", 0)}
    for offset in range(3):
        merge.add(record(("b", 0), offset, 5))
    assert merge.wanted(3, 0, behind) == behind
