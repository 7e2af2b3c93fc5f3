"""The routes (docs/dashboard.md), over the reader's picture.

    reader thread ─> Feed (bytes of each section) ─> /api/stream, one cursor per viewer
                 └─> rings, index ────────────────> /api/tail, /api/search
    a thread of its own ──────────────────────────> /api/why

Nothing here waits for the log but ``/api/why``. Built by ``__main__`` and by tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
import importlib.metadata
from pathlib import Path
import threading
from typing import Any

import msgspec
import prometheus_client
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from services.dashboard import errors, metrics
from services.dashboard.board import READ, Board
from services.dashboard.entrance import Entrance
from services.dashboard.errors import ApiError
from services.dashboard.feed import Feed
from services.dashboard.picture import FIELDS
from services.dashboard.places import Places
from services.dashboard.reader import Reader
from services.dashboard.reasons import Reasons
from services.dashboard.recent import Query
from services.dashboard.settings import Settings
from tailrace.log.base import Log
from tailrace.reading import moment_ms

PAGE = Path(__file__).parent / "page"
_STREAM = {"cache-control": "no-store", "x-accel-buffering": "no"}
_HEARTBEAT_S = 10.0
_HEARTBEAT = b": still here\n\n"
_RETRY = b"retry: 1000\n\n"
_TAIL_S = 0.25
_CURSORS_PER_MS = 1000
"""Restarts are further apart than their records are many; JavaScript counts to 2^53."""
_LIMIT = 200
"""Of results of a search."""


class Dashboard:
    """All routes and the threads behind them. ``now_ms``: wall clock."""

    def __init__(self, settings: Settings, log: Log, *, now_ms: Callable[[], int]) -> None:
        """Raises SettingsError for a ``model_dir`` without a tokenizer and for a trusted key
        file that is none."""
        self.settings = settings
        self.feed = Feed()
        self._now_ms = now_ms
        self._started_ms = now_ms()
        self.board = Board(settings, cursors=self._started_ms * _CURSORS_PER_MS)
        places = Places(
            log,
            READ,
            prefix=settings.prefix,
            every_s=settings.lag_s,
            graders=self.board.graders,
            now_ms=now_ms,
        )
        self.reader = Reader(settings, log, self.board, self.feed, places, now_ms=now_ms)
        self._reasons = Reasons(settings, log)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work.run, args=[self._stop], name=name, daemon=True)
            for name, work in (("reader", self.reader), ("places", places))
        ]

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts and ends the threads."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/api/stream", self.stream),
                Route("/api/now", self.now),
                Route("/api/fields", self.fields),
                Route("/api/about", self.about),
                Route("/api/tail", self.tail),
                Route("/api/why/{subject:path}", self.why),
                Route("/api/search", self.search),
                Route("/metrics", self.measure),
                *(Route(path, self.healthy) for path in ("/health", "/healthz")),
                *(Route(path, self.ready) for path in ("/ready", "/readyz")),
                Mount("/static", StaticFiles(directory=PAGE, check_dir=False)),
            ],
            exception_handlers={
                ApiError: errors.on_api_error,
                HTTPException: errors.on_http_error,
                Exception: errors.on_bug,
            },
            middleware=[Middleware(Entrance, self.settings)],
            lifespan=self._life,
        )

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self.feed.attach()
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.feed.close()
            self._stop.set()
            await asyncio.to_thread(self._threads[0].join, 10.0)

    async def page(self, request: Request) -> Response:
        """GET /."""
        if not (PAGE / "index.html").exists():
            raise ApiError(404, "the page's files are not here")
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    # -- the picture

    async def stream(self, request: Request) -> Response:
        """GET /api/stream: every section at once, then those that changed."""
        self._room()
        return StreamingResponse(self._sections(), media_type="text/event-stream", headers=_STREAM)

    async def _sections(self) -> AsyncIterator[bytes]:
        seen: dict[str, int] = {}
        self.feed.viewers += 1
        try:
            yield _RETRY
            while not self.feed.closed:
                yield await self.feed.next(seen, _HEARTBEAT_S) or _HEARTBEAT
        finally:
            self.feed.viewers -= 1

    async def now(self, request: Request) -> Response:
        """GET /api/now."""
        return _json(self.feed.whole())

    async def fields(self, request: Request) -> Response:
        """GET /api/fields."""
        return _json(msgspec.json.encode(FIELDS))

    async def about(self, request: Request) -> Response:
        """GET /api/about."""
        settings = self.settings
        found = {
            "version": importlib.metadata.version("tailrace"),
            "model": settings.model,
            "prefix": settings.prefix,
            "gateway": settings.gateway_url.rstrip("/") or None,
            "masked": settings.mask_content,
            "history_s": settings.history_s,
            "refresh_s": settings.refresh_s,
            "started_ms": self._started_ms,
            "topics": [topic.name for topic in READ],
        }
        return _json(msgspec.json.encode(found))

    # -- the log

    async def tail(self, request: Request) -> Response:
        """GET /api/tail."""
        name = request.query_params.get("topic", "")
        if name not in self.board.tails:
            known = ", ".join(self.board.tails)
            raise ApiError(400, f"topic: {name!r} cannot be followed here; there are {known}")
        words = request.query_params.get("filter", "").casefold().split()
        text = request.headers.get("last-event-id") or request.query_params.get("since")
        cursor = None if text is None else _number("since", text)
        self._room()
        events = self._records(name, words, cursor)
        return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM)

    async def _records(
        self, name: str, words: list[str], cursor: int | None
    ) -> AsyncIterator[bytes]:
        tail, idle_s = self.board.tails[name], 0.0
        self.feed.tails += 1
        try:
            yield _RETRY
            while not self.feed.closed:
                page = await asyncio.to_thread(tail.after, cursor, words)
                cursor = page.cursor
                if page.skipped:
                    metrics.TAIL_SKIPPED.inc(page.skipped)
                    yield b'event: skipped\ndata: {"count":%d}\n\n' % page.skipped
                if page.rows:
                    idle_s = 0.0
                    yield b"".join(
                        b'event: record\nid: %d\ndata: {"cursor":%d,%b\n\n' % (at, at, row[1:])
                        for at, row in page.rows
                    )
                if not page.more:
                    idle_s += _TAIL_S
                    if idle_s >= _HEARTBEAT_S:
                        idle_s = 0.0
                        yield _HEARTBEAT
                    await asyncio.sleep(_TAIL_S)
        finally:
            self.feed.tails -= 1

    async def why(self, request: Request) -> Response:
        """GET /api/why/{id}."""
        return _json(await self._reasons.of(request.path_params["subject"]))

    async def search(self, request: Request) -> Response:
        """GET /api/search."""
        given = request.query_params
        query = Query(
            text=given.get("q", ""),
            user=given.get("user") or None,
            session=given.get("session") or None,
            tag=given.get("tag") or None,
            since_ms=self._moment("since", given.get("since")),
            until_ms=self._moment("until", given.get("until")),
            limit=min(_LIMIT, max(1, _number("limit", given.get("limit") or "50"))),
        )
        found = await asyncio.to_thread(self.board.recent.search, query)
        return _json(msgspec.json.encode(found))

    # -- the process

    async def healthy(self, request: Request) -> Response:
        """GET /health: the process runs."""
        return Response("ok\n", media_type="text/plain")

    async def ready(self, request: Request) -> Response:
        """GET /ready: all that was on the log at the start is in the picture."""
        if self.reader.caught_up:
            return Response("ok\n", media_type="text/plain")
        return Response("reading what is on the log\n", 503, media_type="text/plain")

    async def measure(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(
            prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )

    def _room(self) -> None:
        if self.feed.viewers + self.feed.tails >= self.settings.viewers_limit:
            raise ApiError(503, f"{self.settings.viewers_limit} streams are open already")

    def _moment(self, name: str, text: str | None) -> int | None:
        try:
            return moment_ms(text, self._now_ms()) if text else None
        except (ValueError, OverflowError) as error:
            raise ApiError(400, f"{name}: {error}") from None


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ApiError(400, f"{name}: {text!r} is no number")
    return int(text)


def _json(body: Any) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
