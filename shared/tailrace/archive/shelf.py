"""An archive in a store: its manifest and its segments.

The manifest is written in turn as ``manifest-a`` and ``manifest-b``, each behind its own sha256: a
writer that dies in between leaves the other one, so at any time the newest that is whole says what
there is. A segment's name says where it begins and what is in it, so no run writes over what
another stored. Segments that no manifest names are nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tailrace.archive import segment
from tailrace.archive.segment import Saved
from tailrace.errors import TailraceError

_MANIFESTS = ("manifest-a", "manifest-b")


class BrokenArchive(TailraceError):
    """A file of an archive is missing, or is not what the manifest says."""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file: the records of ``[start, end)``."""

    name: str
    start: int
    end: int
    """Where reading goes on: past control records at the end."""
    records: int
    bytes: int
    sha256: str


class Partition(msgspec.Struct, kw_only=True):
    """What there is of one partition, from ``start`` on."""

    start: int
    """The low watermark when it was archived first."""
    end: int
    segments: list[Segment] = []
    last: int | None = None
    """Offset of the newest record."""
    last_sha256: str = ""
    """Of its bytes in the segment: by it a log is known again."""
    lost: list[tuple[int, int]] = []
    """``[from, to)`` that expired before they were archived."""


class Manifest(msgspec.Struct, kw_only=True):
    """What an archive holds."""

    format: int = 1
    number: int = 0
    """Grows with each writing."""
    prefix: str
    copy: bool = False
    """The prefix was itself a copy: original append times are in the headers."""
    topics: dict[str, dict[int, Partition]] = {}
    """By bare name and partition."""


class Shelf:
    """An archive at a URL (``s3://bucket/tailrace``, ``file:///mnt/a``, a path)."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing here can open."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ValueError("archives need fsspec: pip install 'tailrace[weights]'") from None
        try:
            self._fs, self._root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{url}: {error}") from None
        self.url = url

    def manifest(self) -> Manifest | None:
        """The newest whole one; None: there is no archive. Raises BrokenArchive, OSError."""
        found, torn = [], 0
        for name in _MANIFESTS:
            try:
                text = self._get(name)
            except FileNotFoundError:
                continue
            mark, _, body = text.partition(b"\n")
            try:
                if mark.decode() != segment.sha256(body):
                    raise ValueError("sha256")
                made = msgspec.json.decode(body, type=Manifest)
            except ValueError:
                torn += 1
                continue
            if made.format != 1:
                raise BrokenArchive(f"{self.url}: format {made.format} is newer than this tailrace")
            found.append(made)
        if torn == len(_MANIFESTS):  # one alone: the first writing ever was cut short
            raise BrokenArchive(f"{self.url}: no manifest is whole")
        return max(found, key=lambda made: made.number, default=None)

    def keep(self, manifest: Manifest) -> None:
        """Write the manifest. Raises OSError."""
        manifest.number += 1
        body = msgspec.json.encode(manifest)
        name = _MANIFESTS[manifest.number % 2]
        self._put(name, segment.sha256(body).encode() + b"\n" + body)

    def add(self, name: str, text: bytes) -> tuple[int, str]:
        """Store a segment and read it back; its size there and its sha256. Raises BrokenArchive,
        OSError."""
        stored = segment.compressed(text)
        self._put(name, stored)
        mark = segment.sha256(stored)
        if segment.sha256(self._get(name)) != mark:
            raise BrokenArchive(f"{self.url}/{name}: is not what was written")
        return len(stored), mark

    def read(self, part: Partition) -> Iterator[Saved]:
        """The records of a partition, each file verified before. Raises BrokenArchive, OSError."""
        for each in part.segments:
            where = f"{self.url}/{each.name}"
            try:
                stored = self._get(each.name)
            except FileNotFoundError:
                raise BrokenArchive(f"{where}: is missing") from None
            if segment.sha256(stored) != each.sha256:
                raise BrokenArchive(f"{where}: is not what the manifest says (sha256)")
            try:
                records = list(segment.unpacked(segment.decompressed(stored)))
            except ValueError as error:
                raise BrokenArchive(f"{where}: {error}") from None
            offsets = [record.offset for record in records]
            within = not offsets or (offsets[0] >= each.start and offsets[-1] < each.end)
            ordered = all(a < b for a, b in zip(offsets, offsets[1:], strict=False))
            if len(records) != each.records or not within or not ordered:
                raise BrokenArchive(f"{where}: its records are not those of the manifest")
            yield from records

    def _get(self, name: str) -> bytes:
        text: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return text

    def _put(self, name: str, text: bytes) -> None:
        path = f"{self._root}/{name}"
        fs: Any = self._fs
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, text)
