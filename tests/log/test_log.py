"""One suite for both logs: what :mod:`tailrace.log.base` promises."""

from __future__ import annotations

import threading
import time

import pytest

from tailrace.errors import LogError, MissingTopic
from tailrace.log.base import Position
from tailrace.partition import partition_of
from tailrace.topics import DEAD_LETTERS, MAX_RECORD_BYTES, named
from tests.log.conftest import drain


def test_an_append_tells_its_position(room):
    producer = room.producer()
    futures = [producer.append(room.topic, b"%d" % n, partition=1) for n in range(3)]
    producer.flush()
    assert [f.result(10) for f in futures] == [Position(1, n) for n in range(3)]
    assert room.log.ends(room.topic) == {0: 0, 1: 3, 2: 0}
    assert room.log.starts(room.topic) == {0: 0, 1: 0, 2: 0}


def test_a_record_comes_back_whole(room):
    before_ms = time.time_ns() // 1_000_000
    producer = room.producer()
    headers = {"ce_id": b"1", "empty": b"", "bytes": bytes(range(256))}
    producer.append(room.topic, b"\x00value\xff", key=b"\x00key", partition=2, headers=headers)
    producer.flush()
    (record,) = drain(room.consumer({(room.topic, 2): 0}), 1)
    assert (record.topic, record.partition, record.offset) == (room.topic, 2, 0)
    assert (record.key, record.value, record.headers) == (b"\x00key", b"\x00value\xff", headers)
    assert before_ms - 1000 <= record.time_ms <= time.time_ns() // 1_000_000 + 1000


def test_nothing_and_an_empty_value_are_told_apart(room):
    producer = room.producer()
    producer.append(room.topic, None, key=None, partition=0)
    producer.append(room.topic, b"", key=b"", partition=0)
    producer.flush()
    first, second = drain(room.consumer({(room.topic, 0): 0}), 2)
    assert (first.key, first.value) == (None, None)
    assert (second.key, second.value) == (b"", b"")


def test_order_holds_within_a_partition(room):
    producer = room.producer()
    for number in range(600):
        producer.append(room.topic, b"%d" % number, partition=number % 3)
    producer.flush()
    records = drain(room.consumer({(room.topic, p): 0 for p in range(3)}), 600)
    for partition in range(3):
        own = [r for r in records if r.partition == partition]
        assert [r.offset for r in own] == list(range(200))
        assert [int(r.value) for r in own] == list(range(partition, 600, 3))


def test_times_do_not_go_back(room):
    room.fill(50)
    times_ms = [r.time_ms for r in drain(room.consumer({(room.topic, 0): 0}), 50)]
    assert times_ms == sorted(times_ms)


def test_a_key_has_its_partition(room):
    producer = room.producer()
    keys = [b"default:chat-%d" % n for n in range(100)]
    futures = [producer.append(room.topic, b"", key=key) for key in keys]
    producer.flush()
    assert [f.result(10).partition for f in futures] == [partition_of(key, 3) for key in keys]


def test_records_without_a_key_go_anywhere(room):
    producer = room.producer()
    futures = [producer.append(room.topic, b"x") for _ in range(5)]
    producer.flush()
    assert sum(room.log.ends(room.topic).values()) == 5
    assert all(0 <= f.result(10).partition < 3 for f in futures)


def test_reading_starts_where_it_is_told(room):
    room.fill(10)
    consumer = room.consumer({(room.topic, 0): 7})
    assert consumer.position(room.topic, 0) == 7
    assert [r.offset for r in drain(consumer, 3)] == [7, 8, 9]
    assert consumer.position(room.topic, 0) == 10
    assert consumer.poll(0.05) == []


def test_a_new_assignment_takes_the_place_of_the_old(room):
    room.fill(5)
    room.fill(5, partition=1)
    consumer = room.consumer({(room.topic, 0): 0})
    assert len(drain(consumer, 5)) == 5
    consumer.assign({(room.topic, 1): 3})
    assert [(r.partition, r.offset) for r in drain(consumer, 2)] == [(1, 3), (1, 4)]
    consumer.assign({(room.topic, 0): 1, (room.topic, 1): 4})
    got = sorted((r.partition, r.offset) for r in drain(consumer, 5))
    assert got == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 4)]


def test_an_assignment_drops_what_was_fetched_ahead(room):
    room.fill(100)
    consumer = room.consumer({(room.topic, 0): 0})
    assert [r.offset for r in consumer.poll(5.0, max_records=1)] == [0]
    consumer.assign({(room.topic, 0): 50})
    assert [r.offset for r in drain(consumer, 50)] == list(range(50, 100))
    assert consumer.position(room.topic, 0) == 100


def test_no_more_records_than_asked_for(room):
    room.fill(30)
    consumer = room.consumer({(room.topic, 0): 0})
    seen = []
    while len(seen) < 30:
        batch = consumer.poll(1.0, max_records=7)
        assert len(batch) <= 7
        seen += [r.offset for r in batch]
        assert consumer.position(room.topic, 0) >= len(seen)
    assert seen == list(range(30))


def test_a_poll_wakes_for_what_comes(room):
    consumer = room.consumer({(room.topic, 0): 0})
    assert consumer.poll(0.05) == []
    late = threading.Timer(0.1, room.fill, (1,))
    late.start()
    began = time.monotonic()
    assert len(drain(consumer, 1)) == 1
    assert time.monotonic() - began < 5
    late.join()


def test_a_time_finds_its_offset(room):
    room.fill(3)
    first = drain(room.consumer({(room.topic, 0): 0}), 3)
    while time.time_ns() // 1_000_000 <= first[-1].time_ms + 1:
        pass
    room.fill(3)
    records = drain(room.consumer({(room.topic, 0): 0}), 6)
    at = room.log.offsets_at(room.topic, records[3].time_ms)
    assert at == {0: 3, 1: 0, 2: 0}
    assert room.log.offsets_at(room.topic, 0) == {0: 0, 1: 0, 2: 0}
    assert room.log.offsets_at(room.topic, records[-1].time_ms + 1000) == {0: 6, 1: 0, 2: 0}


def test_a_group_remembers_what_it_committed(room):
    consumer = room.consumer(group=room.prefix + "g")
    assert consumer.committed(room.topic, [0, 1, 2]) == {}
    consumer.commit(room.topic, {0: 5, 2: 0})
    assert consumer.committed(room.topic, [0, 1, 2]) == {0: 5, 2: 0}
    consumer.commit(room.topic, {0: 3})
    again = room.consumer(group=room.prefix + "g")
    assert again.committed(room.topic, range(3)) == {0: 3, 2: 0}
    other = room.consumer(group=room.prefix + "h")
    assert other.committed(room.topic, [0]) == {}


def test_a_commit_does_not_move_a_reader(room):
    room.fill(4)
    consumer = room.consumer({(room.topic, 0): 2}, group=room.prefix + "g")
    consumer.commit(room.topic, {0: 4})
    assert [r.offset for r in drain(consumer, 2)] == [2, 3]


def test_what_is_deleted_is_gone(room):
    room.fill(10)
    room.log.delete_before(room.topic, {0: 6})
    assert room.log.starts(room.topic) == {0: 6, 1: 0, 2: 0}
    assert room.log.ends(room.topic)[0] == 10
    assert room.values() == [b"6", b"7", b"8", b"9"]
    room.log.delete_before(room.topic, {0: 2})
    assert room.log.starts(room.topic)[0] == 6


def test_a_reader_below_the_low_watermark_goes_on_at_it(room):
    room.fill(10)
    room.log.delete_before(room.topic, {0: 6})
    consumer = room.consumer({(room.topic, 0): 1})
    assert [r.offset for r in drain(consumer, 4)] == [6, 7, 8, 9]


def test_a_reader_does_not_meet_the_deleted_end(room):
    """All of it gone: nothing to read, and the position is the end."""
    room.fill(4)
    room.log.delete_before(room.topic, {0: 4})
    assert room.values() == []
    room.fill(1)
    assert room.values() == [b"0"]


def test_a_record_near_the_limit_travels(room):
    value = bytes(6 * 1024 * 1024)
    producer = room.producer()
    producer.append(room.topic, value, partition=0)
    producer.flush()
    assert room.values() == [value]


def test_a_record_above_the_limit_is_refused_at_once(room):
    producer = room.producer()
    with pytest.raises(LogError, match=room.prefix):
        producer.append(room.topic, bytes(MAX_RECORD_BYTES + 1), partition=0)
    producer.append(room.topic, b"small", partition=0)
    producer.flush()
    assert room.values() == [b"small"]


def test_a_topic_that_is_not_there(room):
    for ask in (room.log.partitions, room.log.starts, room.log.ends):
        with pytest.raises(MissingTopic):
            ask(room.prefix + "nowhere")


def test_creating_again_changes_nothing(room):
    room.fill(1)
    room.log.create([DEAD_LETTERS], prefix=room.prefix)
    room.log.create([DEAD_LETTERS], prefix=room.prefix, session_partitions=9)
    assert room.log.partitions(room.topic) == 3
    assert room.log.partitions(named(DEAD_LETTERS, room.prefix)) == 1
    assert room.values() == [b"0"]


def test_several_threads_may_append(room):
    producer = room.producer()

    def work(partition: int) -> None:
        for number in range(100):
            producer.append(room.topic, b"%d" % number, partition=partition)

    threads = [threading.Thread(target=work, args=(p,)) for p in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush()
    for partition in range(3):
        records = drain(room.consumer({(room.topic, partition): 0}), 100)
        assert [int(r.value) for r in records] == list(range(100))


def test_a_topic_says_how_long_it_keeps(room):
    from tailrace import topics

    assert room.log.retention_ms(room.topic) == topics.OUTPUTS.retention_ms
    assert room.log.retention_ms(room.steps) is None
    room.log.create([topics.SCHEMAS], prefix=room.prefix)
    assert room.log.retention_ms(named(topics.SCHEMAS, room.prefix)) is None
    with pytest.raises(LogError):
        room.log.retention_ms(room.prefix + "nothing")


def test_a_group_is_forgotten(room):
    group = room.prefix + "readers"
    room.log.forget_group(group)
    consumer = room.consumer({(room.topic, 0): 0}, group=group)
    consumer.commit(room.topic, {0: 3})
    other = room.consumer({(room.topic, 0): 0}, group=group + "-other")
    other.commit(room.topic, {0: 4})
    consumer.close()
    room.log.forget_group(group)
    assert room.consumer(group=group).committed(room.topic, [0]) == {}
    assert room.consumer(group=group + "-other").committed(room.topic, [0]) == {0: 4}
