"""Token ids and logprobs as bytes: little-endian int32 and float32, nothing else."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
import sys
from typing import TypeVar

N = TypeVar("N", int, float)


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as packed int32. Raises OverflowError beyond 32 bits."""
    return _little(array("i", ids)).tobytes()


def unpack_ids(packed: bytes | None) -> list[int]:
    """The inverse of :func:`pack_ids`; None gives an empty list.

    Raises ValueError on a torn length.
    """
    values = array("i")
    values.frombytes(packed or b"")
    return _little(values).tolist()


def pack_logprobs(logprobs: Iterable[float]) -> bytes:
    """Logprobs (nats) as packed float32."""
    return _little(array("f", logprobs)).tobytes()


def unpack_logprobs(packed: bytes | None) -> list[float]:
    """The inverse of :func:`pack_logprobs`; None gives an empty list.

    Raises ValueError on a torn length.
    """
    values = array("f")
    values.frombytes(packed or b"")
    return _little(values).tolist()


def _little(values: array[N]) -> array[N]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
