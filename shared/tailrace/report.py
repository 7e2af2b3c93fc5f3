"""What an audit found: two accounts, and what is wrong. Made by :class:`tailrace.audit.Audit`."""

from __future__ import annotations

import msgspec

from tailrace.chain import Problem


class Account(msgspec.Struct, kw_only=True):
    """In = sum of outcomes + in flight + missing + forgotten."""

    records: int = 0
    outcomes: dict[str, int] = {}
    in_flight: int = 0
    missing: int = 0
    forgotten: int = 0
    """Without a receipt, and so old that theirs may have expired before them."""

    @property
    def unaccounted(self) -> int:
        return self.records - sum(self.outcomes.values()) - self.in_flight - self.forgotten


class Report(msgspec.Struct, kw_only=True):
    """What an audit found."""

    ok: bool
    model: str
    head: int | None
    """The version whose history was recounted; None: nothing is published."""
    digest: str | None
    versions: int
    """How many versions the base chain has."""
    feedback: Account
    trajectories: Account
    receipts: dict[str, int]
    """``read``, ``repeated`` (same outcome again), ``other`` (not of this chain)."""
    problems: list[Problem]
