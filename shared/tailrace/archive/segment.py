"""One file of an archive: records of one partition, in order, zstd. Pure.

After decompression: for each record four bytes little-endian that say how long it is, and that much
MessagePack: offset, append time in ms, key, value, headers.
"""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
from typing import NamedTuple

import msgspec

from tailrace.log.base import LogRecord

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is closed once it has as many bytes before compression."""


class Saved(NamedTuple):
    """A record as an archive has it."""

    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


def packed(record: LogRecord) -> bytes:
    """A record as bytes, its length first."""
    body = msgspec.msgpack.encode(
        Saved(record.offset, record.time_ms, record.key, record.value, record.headers)
    )
    return len(body).to_bytes(4, "little") + body


def unpacked(text: bytes) -> Iterator[Saved]:
    """The records of a segment. Raises ValueError where the bytes are no segment."""
    decode = msgspec.msgpack.Decoder(Saved).decode
    at = 0
    while at < len(text):
        size = int.from_bytes(text[at : at + 4], "little")
        at += 4 + size
        if at > len(text):
            raise ValueError("a record is cut short")
        try:
            yield decode(memoryview(text)[at - size : at])
        except msgspec.MsgspecError as error:
            raise ValueError(f"no record: {error}") from None


def compressed(text: bytes) -> bytes:
    """A segment's bytes as they are stored."""
    import zstandard

    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text)


def decompressed(stored: bytes) -> bytes:
    """The inverse. Raises ValueError."""
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise ValueError(f"no zstd: {error}") from None


def sha256(stored: bytes) -> str:
    """What a manifest says of a file, hex."""
    return hashlib.sha256(stored).hexdigest()
