"""An archive while others write: two runs at once, a trainer that publishes, what expires."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import topics
from tailrace.archive.restoring import Restorer
from tailrace.archive.saving import Saver
from tailrace.archive.shelf import Shelf
from tailrace.audit import read
from tailrace.deadline import Deadline
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer, read_all
from tailrace.wire import Wire
from tests.audit.history import MODEL, History
from tests.copies.conftest import Command


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


def publish(past: History, number: int, at: Position) -> None:
    """The next version, in one transaction as a trainer does: it decides the answer at ``at``."""
    inside, plain = past.log.producer(transactional_id="trainer"), past.writer
    past.writer = Writer(inside, Wire())
    inside.begin()
    past.decided(at, number)
    past.step(number, at)
    past.version(number, number - 1, {0: (at.offset, at.offset + 1, []), 1: (0, 0, [])})
    inside.commit()
    past.writer = plain


@pytest.mark.parametrize("after", ["model-updates", "feedback", "trajectories", "steps", ""])
def test_what_a_trainer_publishes_meanwhile_is_there_whole_or_for_the_next_run(
    after: str, tmp_path: Path
) -> None:
    past, shelf = History(), Shelf(str(tmp_path))
    versions = 0

    def more() -> None:
        nonlocal versions
        versions += 1
        past.joined(past.feedback())
        publish(past, versions, past.trajectory(0))

    for _ in range(3):
        more()
    Saver(past.log, "", shelf, say=lambda line: more() if after in line else None).run()
    assert versions > 3
    for number, head in enumerate((3, versions)):
        Restorer(past.log, f"back{number}.", shelf).run()
        now = read(past.log, Wire(), model=MODEL, prefix=f"back{number}.", deadline=Deadline())
        report = now.report()
        assert (report.problems, report.head) == ([], head)
        assert report.trajectories.outcomes == {"trained": head}
        Saver(past.log, "", shelf).run()


@pytest.mark.parametrize("left", [2, 0])
def test_what_expired_between_two_runs_is_where_a_restored_partition_begins(
    left: int, tmp_path: Path, command: Command
) -> None:
    log, kept = MemoryLog(), tmp_path / "kept"
    log.create(topics.TOPICS, session_partitions=1)
    producer = log.producer()
    for topic in ("model-chunks", "feedback"):
        for number in range(3):
            producer.append(topic, b"%d" % number, partition=0)
    command(log, "archive", "--to", kept)
    for number in range(3, 8):
        producer.append("model-chunks", b"%d" % number, partition=0)
    log.delete_before("model-chunks", {0: 8 - left})
    code, said = command(log, "archive", "--to", kept)
    assert code == 0 and f"model-chunks/0/3..{8 - left}: expired before it was archived" in said
    code, said = command(log, "restore", "--from", kept, "--to-prefix", "back.")
    assert code == 0 and f"model-chunks/0 begins at {8 - left}: what came right before" in said
    assert values(log, "back.model-chunks") == [b"6", b"7"][:left]
    assert log.starts("back.model-chunks") == {0: 8 - left}
    assert log.ends("back.model-chunks") == {0: 8}
    assert values(log, "back.feedback") == [b"0", b"1", b"2"]


def test_a_trainer_that_drops_chunks_leaves_a_head_that_is_built(tmp_path: Path) -> None:
    past, shelf = History(), Shelf(str(tmp_path))
    publish(past, 1, past.trajectory(0))
    Saver(past.log, "", shelf).run()
    publish(past, 2, past.trajectory(0))
    publish(past, 3, past.trajectory(0))
    past.version(4, 3, kind="keyframe")
    past.log.delete_before("model-chunks", {0: 4})
    was = past.report()
    assert (was.problems, was.head) == ([], 4)
    Saver(past.log, "", shelf).run()
    Restorer(past.log, "back.", shelf).run()
    assert read(past.log, Wire(), model=MODEL, prefix="back.", deadline=Deadline()).report() == was


def test_keyframes_in_a_store_are_said_not_to_be_in_it(tmp_path: Path, command: Command) -> None:
    past = History()
    past.version(1, 0, kind="keyframe", chunks=None, uri="s3://weights/1")
    past.version(2, 1)
    past.writer.producer.append("model-updates", b"nonsense", key=b"m")
    code, said = command(past.log, "archive", "--to", tmp_path)
    assert code == 0 and "1 new manifests name keyframes in a store" in said
    code, said = command(past.log, "archive", "--to", tmp_path)
    assert code == 0 and "keyframes in a store" not in said
