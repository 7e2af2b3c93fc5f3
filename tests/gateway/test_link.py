"""The link to Kafka: a producer that broke is replaced, one that waits is not."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from services.gateway import metrics
from services.gateway.capture import Capture
from services.gateway.link import Link
from services.gateway.spool import Row, Spool
from tailrace import events, topics
from tailrace.errors import Broken, LogError
from tailrace.stream import Writer
from tailrace.wire import Wire
from tests.gateway.conftest import read

SESSION = "default:s"


def thumb(number):
    return events.Feedback(
        feedback_id=f"{SESSION}!{number}", session_id=SESSION, event_time_ms=number
    )


class Fragile:
    """A producer that can be told to fail, at once or by its delivery report."""

    def __init__(self, log):
        self._inner = log.producer()
        self.raises: LogError | None = None
        self.reports: LogError | None = None
        self.closed = False

    def append(self, *args, **named):
        if self.raises is not None:
            raise self.raises
        if self.reports is not None:
            self.raises = self.reports
            failed = Future()
            failed.set_exception(self.reports)
            return failed
        return self._inner.append(*args, **named)

    def close(self):
        self.closed = True


@pytest.fixture
def producers():
    return []


@pytest.fixture
def link(log, producers):
    def connect():
        producers.append(Fragile(log))
        return Writer(producers[-1], Wire())

    return Link(connect, pause_s=0.0)


@pytest.mark.parametrize("how", ["raises", "reports"])
def test_records_reach_the_log_again_after_a_fatal_error(tmp_path, log, link, producers, how):
    async def run():
        spool = Spool(tmp_path / "spool.sqlite", Wire(), max_bytes=1_000_000)
        capture = Capture(link, spool, queue_bytes=1_000_000, pause_s=0.001)
        capture.start()
        async with asyncio.timeout(10):
            await capture.keep([thumb(1)])
            while capture.state() != "kafka":
                await asyncio.sleep(0)
            setattr(producers[0], how, Broken("outputs: out of order"))
            await capture.keep([thumb(2)])
            while capture.state() != "kafka":
                await asyncio.sleep(0)
            await capture.keep([thumb(3)])
        await capture.close(1.0)

    before = metrics.REBUILDS._value.get()
    asyncio.run(run())
    assert [record.event_time_ms for record in read(log, topics.FEEDBACK)] == [1, 2, 3]
    assert [producer.closed for producer in producers] == [True, True]
    assert metrics.REBUILDS._value.get() == before + 1


def test_a_producer_that_only_waits_stays(link, producers):
    async def run():
        await link.open()
        producers[0].raises = LogError("feedback: timed out")
        (result,) = await link.write_all([Row(1, topics.FEEDBACK, thumb(1))])
        assert isinstance(result, LogError)
        await link.open()
        assert link.up

    asyncio.run(run())
    assert len(producers) == 1
