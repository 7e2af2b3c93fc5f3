"""The HTTP client of the engine, against servers that answer by the byte."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.gateway.upstream import NoConnection, Silent, Upstream, UpstreamError

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nriver"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Answers the n-th request of all with the n-th script: bytes, and at None it closes."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for part in self.scripts.pop(0):
                    if part is None:
                        return
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def served(*scripts, silence_s=5.0):
    server = Server(*scripts)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        upstream = Upstream(f"http://127.0.0.1:{port}/base/", silence_s=silence_s)
        yield server, upstream
        upstream.close()
        await asyncio.sleep(0)


async def fetch(upstream, body=b""):
    async with upstream.ask("POST", "/x", body) as answer:
        return answer.status, await answer.body()


def test_a_connection_is_used_again():
    async def run():
        by_byte = [bytes([byte]) for byte in WHOLE]
        async with served([WHOLE], by_byte, [WHOLE]) as (server, upstream):
            for body in (b"one", b"", b"three"):
                assert await fetch(upstream, body) == (200, b"river")
            assert server.connections == 1
            assert server.requests[0].startswith(b"POST /base/x HTTP/1.1\r\nhost: 127.0.0.1:")
            assert server.requests[2].endswith(b"\r\n\r\nthree")

    asyncio.run(run())


def test_several_at_once_take_several_connections():
    async def run():
        async with served(*[[WHOLE]] * 8) as (server, upstream):
            answers = await asyncio.gather(*(fetch(upstream) for _ in range(4)))
            assert answers == [(200, b"river")] * 4 and server.connections == 4
            await asyncio.gather(*(fetch(upstream) for _ in range(4)))
            assert server.connections == 4

    asyncio.run(run())


def test_a_stream_comes_in_parts_and_a_large_one_does_not_pile_up():
    async def run():
        part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        script = [CHUNKED, *[part] * 40, b"0\r\n\r\n"]
        async with served(script, [WHOLE]) as (server, upstream):
            async with upstream.ask("GET", "/x") as answer:
                await asyncio.sleep(0.05)
                assert answer._bytes <= 1024 * 1024
                assert len(await answer.body()) == 40 * 0x10000
            assert await fetch(upstream) == (200, b"river")
            assert server.connections == 1

    asyncio.run(run())


def test_who_leaves_a_large_answer_unread_leaves_no_deaf_connection():
    async def run():
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 307200\r\n\r\n"
        async with served([head + b"x" * 307200], [WHOLE], silence_s=2.0) as (server, upstream):
            async with upstream.ask("GET", "/x") as answer:
                for _ in range(200):
                    await asyncio.sleep(0.001)
                    if answer.ended:
                        break
            assert await fetch(upstream) == (200, b"river")

    asyncio.run(run())


def test_who_leaves_before_the_end_cuts_the_connection():
    async def run():
        async with served([CHUNKED, b"5\r\nriver\r\n"], [WHOLE]) as (server, upstream):
            async with upstream.ask("GET", "/x") as answer:
                async for part in answer.parts():
                    assert part == b"river"
                    break
            await asyncio.wait_for(server.left.wait(), 5)
            assert await fetch(upstream) == (200, b"river")
            assert server.connections == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    "script",
    [
        [None],
        [b"HTTP/1.1 200 OK\r\n", None],
        [WHOLE[:-1], None],
        [CHUNKED + b"5\r\nri", None],
        [b"SSH-2.0-x\r\n\r\n"],
        [CHUNKED + b"zz\r\n"],
    ],
)
def test_what_breaks_off(script):
    async def run():
        async with served(script, [WHOLE]) as (_, upstream):
            with pytest.raises(UpstreamError) as caught:
                await fetch(upstream)
            assert not isinstance(caught.value, NoConnection | Silent)
            assert await fetch(upstream) == (200, b"river")

    asyncio.run(run())


def test_silence_and_nobody():
    async def run():
        async with served([WHOLE[:-1]], silence_s=0.05) as (_, upstream):
            with pytest.raises(Silent):
                await fetch(upstream)
        with pytest.raises(NoConnection):
            await fetch(upstream)

    asyncio.run(run())


def test_a_server_that_closes_after_each_answer():
    async def run():
        closing = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        async with served([closing, None], [closing, None]) as (server, upstream):
            for _ in range(2):
                assert await fetch(upstream) == (200, b"river")
            assert server.connections == 2

    asyncio.run(run())
