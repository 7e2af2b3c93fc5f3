"""The table knows its size; the topics around it are checked before anything is read."""

from __future__ import annotations

from msgspec.structs import replace
import pytest

from services.rewards.spec import Spec
from services.rewards.table import CHANGELOG, Table, prepare
from tailrace import topics
from tailrace.errors import LogError
from tailrace.log.memory import MemoryLog

HOUR_MS = 3_600_000


def test_the_changelog_is_made(log: MemoryLog, prefix: str) -> None:
    log.create(topics.TOPICS, prefix=prefix, session_partitions=3)
    assert prepare(log, prefix, Spec().lifetime_ms) == 3
    assert log.partitions(prefix + CHANGELOG.name) == 3
    assert log.retention_ms(prefix + CHANGELOG.name) is None


def test_inputs_must_outlive_what_a_lost_table_is_made_of() -> None:
    log = MemoryLog()
    rows = [
        replace(row, retention_ms=HOUR_MS) if row is topics.OUTPUTS else row
        for row in topics.TOPICS
    ]
    log.create(rows, session_partitions=1)
    assert prepare(log, "", HOUR_MS) == 1
    with pytest.raises(LogError, match="outputs keeps records for 1 h, the reward spec needs 2 h"):
        prepare(log, "", 2 * HOUR_MS)


class Outbox:
    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        assert (topic, partition) == ("changelog", 1)
        self.changes.append((key, value))


def test_a_table_knows_how_many_values_and_bytes_it_holds() -> None:
    outbox = Outbox()
    data = {b"0/prompts/0": b"another partition's", b"1/prompts/0": b"12345"}
    table = Table(data, outbox, "changelog", 1, [(b"1/prompts/0", b"12345")])
    assert (table.number, table.size_bytes) == (1, 11 + 5)
    table.insert(b"1/outputs/7", b"123")
    table.insert(b"1/outputs/7", b"it is there")
    assert (table.number, table.size_bytes) == (2, 11 + 5 + 11 + 3)
    table.delete(b"1/prompts/0")
    table.delete(b"1/prompts/0")
    assert (table.number, table.size_bytes) == (1, 11 + 3)
    assert outbox.changes == [(b"1/outputs/7", b"123"), (b"1/prompts/0", None)]
    assert b"0/prompts/0" in data
