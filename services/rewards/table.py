"""The table that the join keeps its state in, its changelog, and the topics around it.

The changelog is an ordinary topic of ours, made here and not by Faust: pure compact (Faust does
not recover from a changelog whose beginning was deleted), with room for a record that is kept.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Protocol

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


class Append(Protocol):
    """See :meth:`services.rewards.outbox.Outbox.append`."""

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None: ...


class Table:
    """The join's store: values in memory, only ever inserted and deleted, and their changelog.

    ``data`` is what Faust recovered, ``held`` those of it that are this partition's; ``topic`` is
    the changelog.
    """

    def __init__(
        self,
        data: MutableMapping[bytes, bytes],
        outbox: Append,
        topic: str,
        partition: int,
        held: Collection[tuple[bytes, bytes]] = (),
    ) -> None:
        self._data = data
        self._outbox = outbox
        self._topic = topic
        self._partition = partition
        self.number = len(held)
        """How many values there are."""
        self.size_bytes = sum(len(key) + len(value) for key, value in held)
        """Of their keys and values, without what Python needs beside those."""

    def get(self, key: bytes) -> bytes | None:
        return self._data.get(key)

    def insert(self, key: bytes, value: bytes) -> None:
        if key not in self._data:
            self._data[key] = value
            self.number += 1
            self.size_bytes += len(key) + len(value)
            self._outbox.append(self._topic, self._partition, key, value)

    def delete(self, key: bytes) -> None:
        value = self._data.pop(key, None)
        if value is not None:
            self.number -= 1
            self.size_bytes -= len(key) + len(value)
            self._outbox.append(self._topic, self._partition, key, None)


def prepare(log: Log, prefix: str, lifetime_ms: int) -> int:
    """Check the topics, make the changelog, publish the schemas. Gives the number of partitions.

    ``lifetime_ms``: how far back a record may matter. Inputs must be kept that long, so that a lost
    table can be made again from them. Raises LogError when one is not, when one is missing, or when
    the session topics' partitions differ.
    """
    rows = (*map(topics.by_name, KINDS), topics.TRAJECTORIES, topics.RECEIPTS)
    found = {row.name: log.partitions(named(row, prefix)) for row in rows}
    if len(set(found.values())) != 1:
        raise LogError(f"session topics must have equal partitions: {found}")
    for kind in KINDS:
        kept_ms = log.retention_ms(prefix + kind)
        if kept_ms is not None and kept_ms < lifetime_ms:
            raise LogError(
                f"{prefix + kind} keeps records for {kept_ms / 3.6e6:g} h, the reward spec needs "
                f"{lifetime_ms / 3.6e6:g} h: raise its retention.ms or lower horizon_s"
            )
    partitions = found["feedback"]
    log.create([CHANGELOG], prefix=prefix, session_partitions=partitions)
    if log.partitions(named(CHANGELOG, prefix)) != partitions:
        raise LogError(f"{named(CHANGELOG, prefix)} must have {partitions} partitions")
    publish_schemas(log, prefix=prefix)
    return partitions
