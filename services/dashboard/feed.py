"""The newest bytes of each section, for any number of viewers.

The reader publishes from its thread; viewers wait on the event loop. Each section is encoded once
and has a serial number; a viewer remembers the number that it was sent last, and takes what is
newer when it can take something. So a slow viewer skips, slows nobody, and costs no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from services.dashboard.learning import Section
from services.dashboard.picture import SECTIONS


class Frame(msgspec.Struct, frozen=True):
    """One section as it is sent."""

    serial: int
    """Counts the section's changes from 1."""
    json: bytes
    event: bytes
    """The server-sent event."""


class Feed:
    """See the module."""

    def __init__(self) -> None:
        self.viewers = 0
        self.tails = 0
        self.skipped = 0
        self.closed = False
        self._frames: dict[str, Frame] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    def attach(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def publish(self, sections: Mapping[str, Section]) -> int:
        """New sections, from any thread; those that say what they said before are left. How many
        bytes are new."""
        size = 0
        frames = dict(self._frames)
        for name, section in sections.items():
            encoded = msgspec.json.encode(section)
            before = frames.get(name)
            if before is not None and before.json == encoded:
                continue
            serial = 1 if before is None else before.serial + 1
            event = b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), serial, encoded)
            frames[name] = Frame(serial, encoded, event)
            size += len(event)
        self._frames = frames
        self._tell()
        return size

    def close(self) -> None:
        """End all streams, from any thread."""
        self.closed = True
        self._tell()

    def _tell(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass  # it was closed meanwhile

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = asyncio.Event()

    def whole(self) -> bytes:
        """All sections that there are, as one JSON object."""
        frames = self._frames
        rows = [
            b'"%b":%b' % (name.encode(), frames[name].json) for name in SECTIONS if name in frames
        ]
        return b"{" + b",".join(rows) + b"}"

    async def next(self, seen: dict[str, int], timeout_s: float) -> bytes:
        """The events of all sections that changed since ``seen``, which is brought up to date; at
        once where there are some. Empty after ``timeout_s`` without any, or at the end."""
        changed = self._changed
        assert changed is not None, "attach first"
        if not (found := self._newer(seen)) and not self.closed:
            try:
                await asyncio.wait_for(changed.wait(), timeout_s)
            except TimeoutError:
                return b""
            found = self._newer(seen)
        return found

    def _newer(self, seen: dict[str, int]) -> bytes:
        parts = []
        for name, frame in self._frames.items():
            before = seen.get(name)
            if before == frame.serial:
                continue
            if before is not None:
                self.skipped += max(0, frame.serial - before - 1)
            seen[name] = frame.serial
            parts.append(frame.event)
        return b"".join(parts)
