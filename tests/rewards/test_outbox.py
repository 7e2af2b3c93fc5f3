"""What a worker writes arrives whole and in order, or the worker ends."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from services.rewards.outbox import Outbox
from tailrace import topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import read_all


class Ended(Exception):
    """The process would end."""


def end(what: str, error: BaseException | None) -> NoReturn:
    raise Ended(f"{what}: {error}")


@pytest.mark.kafka
def test_all_arrives_in_order_whatever_the_queue_holds(broker: Any, prefix: str) -> None:
    log = KafkaLog(broker.bootstrap)
    log.create([topics.TICKS], prefix=prefix, session_partitions=2)
    topic = prefix + "ticks"

    async def story() -> tuple[tuple[int, int], int]:
        outbox = Outbox(broker.bootstrap, end, {"queue.buffering.max.messages": 10})
        for number in range(600):
            outbox.append(topic, number % 2, b"k", b"%d" % number, {"n": b"1"})
        await outbox.flush()
        left = outbox.unsent
        serving = asyncio.ensure_future(outbox.serve())
        place = await outbox.append_and_wait(topic, 1, None, None)
        serving.cancel()
        return place, left

    place, left = asyncio.run(story())
    records = list(read_all(log, topic))
    log.close()
    assert left == 0
    for partition in (0, 1):
        values = [r.value for r in records if r.partition == partition and r.value is not None]
        assert values == [b"%d" % number for number in range(partition, 600, 2)]
    (last,) = (record for record in records if record.value is None)
    assert place == (last.offset, last.time_ms) and last.headers == {}
    assert records[0].headers == {"n": b"1"}


@pytest.mark.kafka
def test_a_flush_does_not_wait_for_what_comes_after_it(broker: Any, prefix: str) -> None:
    log = KafkaLog(broker.bootstrap)
    log.create([topics.TICKS], prefix=prefix, session_partitions=1)
    log.close()

    async def story() -> None:
        outbox = Outbox(broker.bootstrap, end)
        going_on = True

        async def write() -> None:
            while going_on:
                outbox.append(prefix + "ticks", 0, None, b"more")
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        await asyncio.wait_for(asyncio.gather(*(outbox.flush() for _ in range(3))), 20)
        going_on = False
        await writing
        await outbox.flush()
        assert outbox.unsent == 0

    asyncio.run(story())


def test_a_failed_delivery_ends_the_worker() -> None:
    async def story() -> None:
        outbox = Outbox("127.0.0.1:9", end, {"delivery.timeout.ms": 300})
        outbox.append("t", 0, None, b"v")
        await outbox.flush()

    with pytest.raises(Ended, match="append to t"):
        asyncio.run(story())


def test_a_record_that_is_too_large_ends_the_worker() -> None:
    outbox = Outbox("127.0.0.1:9", end, {"message.max.bytes": 1000})
    with pytest.raises(Ended, match="append to t"):
        outbox.append("t", 0, None, b"v" * 2000)
