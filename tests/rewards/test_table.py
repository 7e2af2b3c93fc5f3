"""The topics around the table are checked before anything is read."""

from __future__ import annotations

from msgspec.structs import replace
import pytest

from services.rewards.spec import Spec
from services.rewards.table import CHANGELOG, prepare
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
