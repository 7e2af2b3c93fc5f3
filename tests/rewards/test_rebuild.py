"""Forgetting drops the offsets and every value, each on its partition."""

from __future__ import annotations

from services.rewards.rebuild import GROUP, rebuild
from services.rewards.table import CHANGELOG
from tailrace import topics
from tailrace.log.base import Log
from tailrace.stream import read_all


def test_offsets_and_values_are_forgotten(log: Log, prefix: str) -> None:
    log.create([topics.FEEDBACK, CHANGELOG], prefix=prefix, session_partitions=2)
    changelog = prefix + CHANGELOG.name
    producer = log.producer()
    for partition in (0, 1):
        for key, value in ((b"a", b"1"), (b"b", b"2"), (b"a", None)):
            producer.append(changelog, value, key=key, partition=partition)
    producer.append(changelog, b"3", key=b"c", partition=1)
    producer.flush()
    producer.close()
    consumer = log.consumer(group=prefix + GROUP)
    consumer.commit(prefix + "feedback", {0: 5})
    assert rebuild(log, prefix) == 3
    assert consumer.committed(prefix + "feedback", [0, 1]) == {}
    consumer.close()
    left: dict[tuple[int, bytes | None], bytes | None] = {}
    for record in read_all(log, changelog):
        left[record.partition, record.key] = record.value
    assert len(left) == 5 and set(left.values()) == {None}
    assert rebuild(log, prefix) == 0
