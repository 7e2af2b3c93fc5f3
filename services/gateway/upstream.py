"""HTTP/1.1 to one server over kept connections: as little between two sockets as can be.

In: a path and a body. Out: an Answer, read whole or as it comes. A general client costs as much as
all the rest of a request here, so this one knows just what the engine speaks: answers with a length
or in chunks, no redirects, no cookies, no compression. Called by :mod:`services.gateway.engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import ssl
from typing import cast
from urllib.parse import urlsplit

import httptools

_CONNECT_S = 5.0
_KEEP_S = 3.0
"""vLLM closes idle connections after 5 s: do not reuse one that is about to be."""
_WAITING_BYTES = 256 * 1024
"""More of an answer than this is left in the socket until the first part was taken."""


class UpstreamError(Exception):
    """An exchange that failed."""


class NoConnection(UpstreamError):
    """Nobody listens: the request was not sent."""


class Silent(UpstreamError):
    """Not a byte came for too long."""


class Answer(asyncio.Protocol):
    """One connection, and the answer that comes on it at the time."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        """0 before the answer's head is there."""
        self.ended = False
        self._parts: list[bytes] = []
        self._bytes = 0
        self._paused = False
        self._again = False
        self._parser = httptools.HttpResponseParser(self)
        self._heard_s = self._loop.time()

    async def ask(self, request: bytes) -> None:
        """Send a request; its status is known when this returns."""
        self._begin()
        self._transport.write(request)
        self._timer = self._loop.call_later(self._silence_s, self._listen)
        while not self.status:
            await self._more()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamError when it breaks off."""
        while True:
            if self._parts:
                part = b"".join(self._parts)
                self._parts.clear()
                self._bytes = 0
                if self._paused:
                    self._paused = False
                    self._heard_s = self._loop.time()
                    self._transport.resume_reading()
                yield part
            elif self.ended:
                return
            else:
                await self._more()

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([part async for part in self.parts()])

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self.close()
        self._wake()

    def _listen(self) -> None:
        rest_s = self._heard_s + self._silence_s - self._loop.time()
        if rest_s <= 0 and not self._paused:
            self._fail(Silent(f"not a byte for {self._silence_s} s"))
        else:
            self._timer = self._loop.call_later(max(rest_s, 1.0), self._listen)

    def rest(self) -> bool:
        """Have nothing under way. Whether the connection may be used again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._again or self._paused or self._error is not None:
            self.close()
            return False
        return True

    @property
    def closed(self) -> bool:
        return self._error is not None or self._transport.is_closing()

    def close(self) -> None:
        # Not close(): the engine must notice at once that nobody waits any more.
        self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError(f"no HTTP: {error}"))
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended:
            self._fail(UpstreamError(f"the connection ended: {error!r}"))
        self._error = self._error or UpstreamError("the connection ended")

    # -- httptools

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._bytes += len(body)
        if self._bytes > _WAITING_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.ended = True
        # Only now: behind the end of the message the parser knows nothing of it any more.
        self._again = self._parser.should_keep_alive()


class Upstream:
    """One server."""

    def __init__(self, url: str, *, silence_s: float) -> None:
        """``silence_s``: how long an answer may stay without a byte."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._head = f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
        self._silence_s = silence_s
        self._idle: list[tuple[float, Answer]] = []

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, body: bytes = b"", traceparent: str | None = None
    ) -> AsyncIterator[Answer]:
        """The answer, once its status is known; left before its end, the connection is cut.

        Raises UpstreamError; NoConnection when nothing was sent.
        """
        answer = self._kept() or await self._connect()
        request = (
            f"{method} {self._path}{path}{self._head}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
        )
        if traceparent is not None:
            request += f"traceparent: {traceparent}\r\n"
        try:
            await answer.ask(request.encode() + b"\r\n" + body)
            yield answer
        finally:
            if answer.rest():
                self._idle.append((asyncio.get_running_loop().time(), answer))

    def _kept(self) -> Answer | None:
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            since_s, answer = self._idle.pop()
            if not answer.closed and now_s - since_s < _KEEP_S:
                return answer
            answer.close()
        return None

    async def _connect(self) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, answer = await loop.create_connection(
                    lambda: Answer(self._silence_s), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise NoConnection(repr(error)) from None
        return answer

    def close(self) -> None:
        """Let go of the connections that are kept."""
        for _, answer in self._idle:
            answer.close()
        self._idle.clear()
