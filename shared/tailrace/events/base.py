"""What every record is made of."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True):
    """Base of all records: immutable, built by keyword."""


class Coordinates(Struct, frozen=True, kw_only=True):
    """Where a record lies: the unit of every account."""

    topic: str = ""
    partition: int = 0
    offset: int = 0
