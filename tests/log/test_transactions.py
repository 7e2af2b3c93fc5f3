"""Transactions on both logs: all or nothing, one writer, committed records only."""

from __future__ import annotations

import pytest

from tailrace.errors import Fenced, LogError, TooLarge
from tailrace.stream import read_all
from tests.log.conftest import drain


def transact(producer, *appends, commit=True):
    producer.begin()
    for topic, value in appends:
        producer.append(topic, value, partition=0)
    if commit:
        producer.commit()
    else:
        producer.flush()
        producer.abort()


def eventually(true) -> bool:
    return any(true() for _ in range(2000))


def committed(room, topic):
    return room.values(topic, committed_only=True)


def test_a_transaction_over_two_topics_appears_whole(room):
    producer = room.producer("t")
    producer.begin()
    futures = [producer.append(room.topic, b"a", partition=0)]
    futures.append(producer.append(room.steps, b"b", partition=0))
    producer.flush()
    assert [f.result(10).offset for f in futures] == [0, 0]
    consumer = room.consumer({(room.topic, 0): 0, (room.steps, 0): 0}, committed_only=True)
    assert consumer.poll(0.3) == []
    assert consumer.position(room.topic, 0) == 0
    producer.commit()
    assert sorted(r.value for r in drain(consumer, 2)) == [b"a", b"b"]


def test_an_open_transaction_is_seen_by_those_who_read_uncommitted(room):
    producer = room.producer("t")
    producer.begin()
    producer.append(room.topic, b"a", partition=0)
    producer.flush()
    assert [r.value for r in drain(room.consumer({(room.topic, 0): 0}), 1)] == [b"a"]
    producer.abort()


def test_an_aborted_transaction_is_never_seen(room):
    producer = room.producer("t")
    transact(producer, (room.topic, b"lost"), commit=False)
    transact(producer, (room.topic, b"kept"))
    assert committed(room, room.topic) == [b"kept"]
    assert room.values() == [b"lost", b"kept"]


def test_an_abort_before_anything_was_sent(room):
    """The records still in the client's queue must not haunt the next transaction."""
    producer = room.producer("t")
    producer.begin()
    for _ in range(50):
        producer.append(room.topic, b"lost", partition=0)
    producer.abort()
    producer.begin()
    producer.append(room.topic, b"kept", partition=0)
    producer.commit()
    assert committed(room, room.topic) == [b"kept"]


def test_an_empty_transaction_leaves_no_trace(room):
    producer = room.producer("t")
    transact(producer)
    transact(producer, commit=False)
    transact(producer, (room.topic, b"a"))
    assert committed(room, room.topic) == [b"a"]


def test_positions_pass_control_records(room):
    """Ends count them, so a reader that must reach an end has to get past them."""
    producer = room.producer("t")
    transact(producer, (room.topic, b"a"))
    transact(producer, (room.topic, b"b"), commit=False)
    # The broker writes the control record of an abort after it answered.
    assert eventually(lambda: room.log.ends(room.topic)[0] == 4)
    for committed_only, count in ((True, 1), (False, 2)):
        consumer = room.consumer({(room.topic, 0): 0}, committed_only=committed_only)
        records = drain(consumer, count)
        while consumer.position(room.topic, 0) < 4:
            records += consumer.poll(5.0)
        assert consumer.position(room.topic, 0) == 4
        assert len(records) == count


def test_a_fixed_range_that_ends_in_control_records_is_read_to_its_end(room):
    producer = room.producer("t")
    transact(producer, (room.topic, b"a"))
    assert eventually(lambda: room.log.ends(room.topic)[0] == 2)
    assert committed(room, room.topic) == [b"a"]
    starts, ends = {0: 1}, {0: 2, 1: 0, 2: 0}
    for committed_only in (True, False):
        options = {"starts": starts, "ends": ends, "committed_only": committed_only}
        assert list(read_all(room.log, room.topic, **options)) == []


def test_offsets_are_shared_with_plain_records(room):
    transact(room.producer("t"), (room.topic, b"a"))
    room.fill(1)
    consumer = room.consumer({(room.topic, 0): 0}, committed_only=True)
    assert [r.offset for r in drain(consumer, 2)] == [0, 2]


def test_a_committed_reader_waits_behind_an_open_transaction(room):
    producer = room.producer("t")
    producer.begin()
    producer.append(room.topic, b"open", partition=0)
    producer.flush()
    room.fill(1)
    consumer = room.consumer({(room.topic, 0): 0}, committed_only=True)
    assert consumer.poll(0.3) == []
    producer.abort()
    assert [r.value for r in drain(consumer, 1)] == [b"0"]


def test_a_second_producer_fences_the_first(room):
    first = room.producer("t")
    transact(first, (room.topic, b"a"))
    second = room.producer("t")
    transact(second, (room.topic, b"b"))
    with pytest.raises(Fenced):
        transact(first, (room.topic, b"c"))
    with pytest.raises(Fenced):
        transact(first, (room.topic, b"c"))
    transact(second, (room.topic, b"d"))
    assert committed(room, room.topic) == [b"a", b"b", b"d"]


def test_fencing_ends_an_open_transaction(room):
    first = room.producer("t")
    first.begin()
    first.append(room.topic, b"lost", partition=0)
    first.flush()
    second = room.producer("t")
    transact(second, (room.topic, b"kept"))
    with pytest.raises(Fenced):
        first.commit()
    assert committed(room, room.topic) == [b"kept"]


def test_other_ids_do_not_fence(room):
    first, second = room.producer("one"), room.producer("two")
    transact(first, (room.topic, b"a"))
    transact(second, (room.topic, b"b"))
    transact(first, (room.topic, b"c"))
    assert committed(room, room.topic) == [b"a", b"b", b"c"]


def test_an_append_outside_a_transaction_is_refused(room):
    producer = room.producer("t")
    transact(producer, (room.topic, b"a"))
    with pytest.raises(LogError):
        producer.append(room.topic, b"b", partition=0)
    transact(producer, (room.topic, b"c"))
    assert committed(room, room.topic) == [b"a", b"c"]


def test_a_record_too_large_does_not_spoil_the_transaction(room):
    producer = room.producer("t")
    producer.begin()
    with pytest.raises(TooLarge):
        producer.append(room.topic, bytes(9 * 1024 * 1024), partition=0)
    producer.append(room.topic, b"a", partition=0)
    producer.commit()
    assert committed(room, room.topic) == [b"a"]


def test_a_producer_that_ends_drops_its_open_transaction(room):
    producer = room.log.producer(transactional_id=room.prefix + "t")
    producer.begin()
    producer.append(room.topic, b"lost", partition=0)
    producer.flush()
    producer.close()
    transact(room.producer("t"), (room.topic, b"kept"))
    assert committed(room, room.topic) == [b"kept"]
