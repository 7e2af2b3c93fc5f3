"""The table that the join keeps its state in, its changelog, and the topics around it.

The changelog is an ordinary topic of ours, made here and not by Faust: pure compact (Faust does
not recover from a changelog whose beginning was deleted), with room for a record that is kept.
"""

from __future__ import annotations

from typing import Any

from services.rewards.offsets import KINDS
from tailrace import topics
from tailrace.errors import LogError
from tailrace.log.base import Log
from tailrace.stream import publish_schemas
from tailrace.topics import MAX_RECORD_BYTES, named

TABLE = "state"
RECORD_BYTES = MAX_RECORD_BYTES + 1024 * 1024
"""Largest record of the changelog: what is kept is a little larger than what came."""


class Changelog(topics.Topic, frozen=True, kw_only=True):
    """The table's topic. A kept record is a little larger than the record."""

    def config(self) -> dict[str, str]:
        """As the others, but with room."""
        return {**super().config(), "max.message.bytes": str(RECORD_BYTES)}


CHANGELOG = Changelog(
    name=f"tailrace-rewards-{TABLE}-changelog",
    record=None,
    key="coordinates",
    by_session=True,
    retention_ms=None,
    cleanup="compact",
)


class Table:
    """The join's store: a Faust table that is only ever inserted into and deleted from."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get(self, key: bytes) -> bytes | None:
        return self._table.data.get(key)

    def insert(self, key: bytes, value: bytes) -> None:
        if key not in self._table.data:
            self._table[key] = value

    def delete(self, key: bytes) -> None:
        if key in self._table.data:
            del self._table[key]


def prepare(log: Log, prefix: str) -> int:
    """Check the topics, make the changelog, publish the schemas. Gives the number of partitions.

    Raises LogError when an input is missing or the session topics' partitions differ.
    """
    rows = (*map(topics.by_name, KINDS), topics.TRAJECTORIES, topics.RECEIPTS)
    found = {row.name: log.partitions(named(row, prefix)) for row in rows}
    if len(set(found.values())) != 1:
        raise LogError(f"session topics must have equal partitions: {found}")
    partitions = found["feedback"]
    log.create([CHANGELOG], prefix=prefix, session_partitions=partitions)
    if log.partitions(named(CHANGELOG, prefix)) != partitions:
        raise LogError(f"{named(CHANGELOG, prefix)} must have {partitions} partitions")
    publish_schemas(log, prefix=prefix)
    return partitions
