"""An archive while others write: two runs at once, a trainer that publishes, what expires."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import topics
from tailrace.archive.restoring import Restorer
from tailrace.archive.saving import Saver
from tailrace.archive.shelf import Shelf
from tailrace.log.memory import MemoryLog
from tailrace.stream import read_all


class Killed(BaseException):
    """A run ends here."""


def values(log: MemoryLog, topic: str) -> list[bytes | None]:
    return [record.value for record in read_all(log, topic)]


def test_a_run_writes_over_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, shelf = MemoryLog(), Shelf(str(tmp_path))
    log.create(topics.TOPICS, session_partitions=1)
    producer = log.producer()
    producer.append("feedback", b"one", partition=0)
    put = Shelf._put

    def overtaken(self: Shelf, name: str, text: bytes) -> None:
        monkeypatch.setattr(Shelf, "_put", put)
        producer.append("feedback", b"two", partition=0)
        Saver(log, "", shelf).run()
        put(self, name, text)
        raise Killed

    monkeypatch.setattr(Shelf, "_put", overtaken)
    with pytest.raises(Killed):
        Saver(log, "", shelf).run()
    Restorer(log, "back.", shelf).run()
    assert values(log, "back.feedback") == [b"one", b"two"]
