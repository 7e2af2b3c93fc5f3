"""Open-loop HTTP load: requests go out on a schedule, and time counts from the schedule.

Plain HTTP/1.1 over asyncio, so that the generator takes little of the core that it shares. Used by
:mod:`benchmarks.gateway`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
import gc
import json
import statistics
import time
from typing import Any, NamedTuple

WARM_S = 1.5
_SPIN_S = 0.0015
"""The loop's timers are a millisecond wide: the rest of the way to a moment is waited for awake."""


class Times(NamedTuple):
    """Of all requests, in ms."""

    p50_ms: float
    p99_ms: float


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time, for answers with a content-length."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0
        self._done: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """The status of the answer, once it is there."""
        self._buffer.clear()
        self._needed = 0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed and (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            fields = self._buffer[:head].lower()
            length = fields.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._needed = head + 4 + int(length)
        if self._needed and len(self._buffer) >= self._needed and self._done is not None:
            self._done.set_result(int(self._buffer[9:12]))
            self._done = None

    @property
    def lost(self) -> bool:
        return self._transport.is_closing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None:
            self._done.set_exception(error or ConnectionError("closed"))

    def close(self) -> None:
        self._transport.close()


class Load:
    """Open-loop requests to one address."""

    def __init__(self, url: str, path: str, body: Callable[[int], Any], key: str) -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._path = path
        self._body = body
        self._key = key
        self._sent = 0
        self.seconds: list[float] = []
        self.wrong: list[int] = []

    def _request(self) -> bytes:
        body = json.dumps(self._body(self._sent)).encode()
        self._sent += 1
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"authorization: Bearer {self._key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def run(self, rate: float, seconds: float) -> None:
        """A warm-up, then ``rate`` requests a second; their times are kept."""
        idle: deque[Connection] = deque()
        loop = asyncio.get_running_loop()

        async def one(due_s: float, kept: bool) -> None:
            while idle and idle[-1].lost:
                idle.pop()
            if not idle:
                _, connection = await loop.create_connection(
                    Connection, self._host, int(self._port)
                )
            else:
                connection = idle.pop()
            status = await connection.ask(self._request())
            if kept:
                self.seconds.append(time.perf_counter() - due_s)
            if status not in (200, 202):
                self.wrong.append(status)
            idle.append(connection)

        gc.collect()
        gc.disable()
        begin_s = time.perf_counter() + 0.05
        warm = int(WARM_S * rate)
        running = []
        for number in range(warm + int(seconds * rate)):
            due_s = begin_s + number / rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter() - _SPIN_S))
            while time.perf_counter() < due_s:
                await asyncio.sleep(0)
            running.append(asyncio.create_task(one(due_s, number >= warm)))
        await asyncio.gather(*running)
        gc.enable()
        for connection in idle:
            connection.close()
        await asyncio.sleep(0.2)

    def times(self) -> Times:
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return Times(round(cuts[49] * 1000, 3), round(cuts[98] * 1000, 3))
