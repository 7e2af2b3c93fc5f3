"""Records on their way out: who stops waiting does not stop the others."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from services.gateway.capture import Capture
from services.gateway.event import SpoolFull
from services.gateway.link import Link
from services.gateway.spool import Spool
from tailrace import topics
from tailrace.errors import LogError
from tailrace.events import Feedback, Prompt, PromptContent
from tailrace.stream import Writer
from tailrace.wire import Wire

SESSION = "default:s"


def thumb(number: int) -> Feedback:
    return Feedback(feedback_id=f"{SESSION}!{number}", session_id=SESSION, event_time_ms=number)


def away() -> Writer:
    raise LogError("no broker")


def test_feedback_that_nobody_waits_for_any_more_finds_no_room(tmp_path):
    async def run():
        spool = Spool(tmp_path / "spool.sqlite", Wire(), max_bytes=10)
        capture = Capture(Link(away), spool, queue_bytes=1_000_000, pause_s=0.001)
        capture.start()
        left = asyncio.create_task(capture.keep([thumb(1)]))
        await asyncio.sleep(0)
        left.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await left
            with pytest.raises(SpoolFull):
                await capture.keep([thumb(2)])
        assert capture.state() == "spool"
        await capture.close(1.0)

    asyncio.run(run())


def test_what_was_lost_is_on_disk_as_a_stub_at_the_end(tmp_path):
    turn = f"{SESSION}~0000000000000"
    prompt = Prompt(
        interaction_id=turn,
        session_id=SESSION,
        event_time_ms=1,
        content=PromptContent(messages="Hi"),
    )

    async def run():
        capture = Capture(Link(away), spool(), queue_bytes=10, pause_s=0.001)
        capture.start()
        capture.offer(topics.PROMPTS, prompt)
        await capture.close(1.0)

    def spool():
        return Spool(tmp_path / "spool.sqlite", Wire(), max_bytes=1_000_000)

    asyncio.run(run())
    (row,) = spool().head(9)
    assert row.record == msgspec.structs.replace(prompt, content=None)
