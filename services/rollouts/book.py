"""What must survive the process: whose groups these are, which are done, which are on their way.

One file, replaced whole. A group's records are kept before the first of them is appended, and until
the log has acknowledged the last: so a restart appends the very same records, never another answer
under a known id. Only one process has the book; the kernel gives it free when that ends.
"""

from __future__ import annotations

from collections.abc import Sequence
import fcntl
import os
from pathlib import Path
import secrets

import msgspec

from tailrace import events
from tailrace.errors import SettingsError

Record = events.Prompt | events.Output | events.Feedback


class _Tagged(msgspec.Struct):
    """A record by its kind; exactly one is there."""

    prompt: events.Prompt | None = None
    output: events.Output | None = None
    feedback: events.Feedback | None = None


class _Page(msgspec.Struct):
    identity: str
    below: int = 0
    """Every group below is done."""
    done: set[int] = set()
    """Those that are, from there on."""
    kept: dict[int, list[_Tagged]] = {}
    """Groups on their way."""


class Book:
    """The book of a folder, made where there is none.

    Raises SettingsError when another process has it, or when the file is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "book.msgpack"
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise SettingsError(f"rollouts.state_dir: {folder} is another process's") from None
        if self._file.exists():
            try:
                self._page = msgspec.msgpack.decode(self._file.read_bytes(), type=_Page)
            except msgspec.DecodeError as error:
                os.close(self._lock)
                raise SettingsError(f"{self._file}: {error}; without it all begins anew") from None
        else:
            self._page = _Page(identity=secrets.token_hex(6))
            self._write()

    @property
    def identity(self) -> str:
        """In the ids of all groups of this book, and of no other."""
        return self._page.identity

    @property
    def kept(self) -> dict[int, list[Record]]:
        """Groups that may lie on the log in part."""
        return {number: [_record(one) for one in page] for number, page in self._page.kept.items()}

    def __contains__(self, number: object) -> bool:
        """Whether a number was used: its group is on its way, on the log, or dropped."""
        assert isinstance(number, int)
        page = self._page
        return number < page.below or number in page.done or number in page.kept

    def keep(self, number: int, records: Sequence[Record]) -> None:
        """A group is about to be appended. On disk when this returns."""
        self._page.kept[number] = [_tagged(record) for record in records]
        self._write()

    def finish(self, number: int) -> None:
        """A group is on the log, or will never be. On disk when this returns."""
        page = self._page
        page.kept.pop(number, None)
        page.done.add(number)
        while page.below in page.done:
            page.done.remove(page.below)
            page.below += 1
        self._write()

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def _write(self) -> None:
        part = self._file.with_suffix(".part")
        with part.open("wb") as out:
            out.write(msgspec.msgpack.encode(self._page))
            out.flush()
            os.fsync(out.fileno())
        part.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _tagged(record: Record) -> _Tagged:
    match record:
        case events.Prompt():
            return _Tagged(prompt=record)
        case events.Output():
            return _Tagged(output=record)
        case events.Feedback():
            return _Tagged(feedback=record)


def _record(one: _Tagged) -> Record:
    found = one.prompt or one.output or one.feedback
    assert found is not None
    return found
