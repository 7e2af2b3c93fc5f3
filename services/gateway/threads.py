"""From other threads back to the event loop. For the gateway's capture and its link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
import logging
import signal
import threading
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


def awaitable(future: Future[T]) -> asyncio.Future[T]:
    """Like asyncio.wrap_future, but cancelling it leaves the producer's future alone: the delivery
    report would find it cancelled and end the producer's thread."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[T] = loop.create_future()

    def settle() -> None:
        error = future.exception()
        if waiting.done():
            return
        if error is None:
            waiting.set_result(future.result())
        else:
            waiting.set_exception(error)

    future.add_done_callback(lambda _: loop.call_soon_threadsafe(settle))
    return waiting


def vital(task: asyncio.Task[None]) -> None:
    """Should this task end by an error, so does the process: what waits for it would wait for
    ever."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("task ended name=%s", task.get_name(), exc_info=task.exception())
            signal.raise_signal(signal.SIGTERM)

    task.add_done_callback(ended)


async def apart(work: Callable[[], T]) -> T:
    """Run blocking work on a thread that nobody has to wait for at the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as raised:
            result, error = None, raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            log.debug("the loop ended before its thread")

    threading.Thread(target=run, name="apart", daemon=True).start()
    return await done
