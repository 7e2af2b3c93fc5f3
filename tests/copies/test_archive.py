"""Topics as files and back: byte for byte, only what is new, after kills; what audits clean."""

from __future__ import annotations

from pathlib import Path
import random
from typing import Any

import pytest

from tailrace import topics
from tailrace.archive import shelf as shelves
from tailrace.archive.restoring import Restorer
from tailrace.archive.saving import Saver
from tailrace.archive.shelf import BrokenArchive, Shelf
from tailrace.audit import read
from tailrace.deadline import Deadline
from tailrace.errors import LogError
from tailrace.log.memory import MemoryLog, MemoryProducer
from tailrace.stream import Writer, read_all
from tailrace.wire import Wire
from tests.audit.history import MODEL, History
from tests.copies.conftest import Command
from tests.copies.past import lay, replayed, rewarded, trajectories
from tests.rewards.test_join import SPEC, Story


def there(log: MemoryLog, topic: str, committed_only: bool = False) -> list[tuple[Any, ...]]:
    """Place, key, value and own headers of every record."""
    found = read_all(log, topic, committed_only=committed_only)
    return [
        (r.partition, r.offset, r.key, r.value, {**r.headers, "tailrace-time-ms": b""})
        for r in found
    ]


def scribble(log: MemoryLog, chance: random.Random, acts: int) -> None:
    """Records on two topics, plain and in transactions that commit and abort."""
    plain = log.producer()
    for number in range(acts):
        topic = chance.choice(("receipts", "feedback"))
        value, key = b"%d" % number, chance.choice((b"k", None))
        act = chance.random()
        if act < 0.6:
            plain.append(topic, value, key=key, partition=0, headers={"n": value})
        else:
            ends = log.producer(transactional_id="t")
            ends.begin()
            for _ in range(chance.randint(1, 3)):
                ends.append(topic, value, partition=0)
            if act < 0.8 or topic == "feedback":
                ends.commit()
            else:
                ends.abort()


@pytest.mark.parametrize("seed", range(10))
def test_every_record_comes_back_to_its_own_offset(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    log, shelf = MemoryLog(), Shelf(str(tmp_path / "kept"))
    log.create(topics.TOPICS, session_partitions=2)
    scribble(log, chance, 12)
    if seed % 2:
        log.delete_before("receipts", {0: 3, 1: 0})
        log.delete_before("feedback", {0: 2})
    put, left = Shelf._put, [0]

    def dies(self: Shelf, name: str, text: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            (tmp_path / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "kept" / name).write_bytes(text[: len(text) // 2])
            raise KeyboardInterrupt
        put(self, name, text)

    monkeypatch.setattr(Shelf, "_put", dies)
    total = 0
    for _ in range(20):
        left[0] = chance.randint(0, 3)
        saver = Saver(log, "", shelf, segment_bytes=chance.choice((60, 10**6)))
        try:
            saver.run()
        except KeyboardInterrupt:
            continue
        finally:
            total += saver.kept.records
        scribble(log, chance, 3)
    monkeypatch.undo()
    kept = Saver(log, "", shelf).run()
    assert total + kept.records >= len(there(log, "feedback")) and kept.lost == []
    assert Saver(log, "", shelf).run().records == 0
    restored = Restorer(log, "back.", shelf).run()
    for topic in (topics.RECEIPTS, topics.FEEDBACK):
        found = there(log, f"back.{topic.name}", topic.transactional)
        assert found == [
            (*record[:4], {**record[4]}) for record in there(log, topic.name, topic.transactional)
        ]
        assert log.ends(f"back.{topic.name}") == log.ends(topic.name)
        assert restored.records[topic.name] == len(found)


@pytest.mark.parametrize("seed", range(5))
def test_a_restore_that_breaks_off_goes_on(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    log, shelf = MemoryLog(), Shelf(str(tmp_path))
    log.create(topics.TOPICS, session_partitions=1)
    producer = log.producer()
    for number in range(60):
        producer.append(chance.choice(("feedback", "prompts")), b"%d" % number, partition=0)
    log.delete_before("feedback", {0: 7})
    Saver(log, "", shelf).run()
    append, left = MemoryProducer.append, [10**6]

    def fails(self, topic, *given, **more):  # type: ignore[no-untyped-def]
        left[0] -= topic in ("back.feedback", "back.prompts")
        if left[0] < 0:
            raise LogError("away")
        return append(self, topic, *given, **more)

    monkeypatch.setattr(MemoryProducer, "append", fails)
    for attempt in range(100):
        left[0] = chance.randint(0, 20)
        try:
            Restorer(log, "back.", shelf, resume=attempt > 0).run()
            break
        except LogError as error:
            assert str(error) == "away"
    for topic in ("feedback", "prompts"):
        assert there(log, f"back.{topic}") == there(log, topic)
        assert log.starts(f"back.{topic}") == log.starts(topic)


def history() -> History:
    """Two versions, what they decided, in transactions as a trainer does."""
    made = History()
    plain = made.writer
    inside = made.log.producer(transactional_id="trainer")
    said = [made.feedback() for _ in range(6)]
    for at in said[:4]:
        made.joined(at)
    letter = {"tailrace-source": f"feedback/{said[4].partition}/{said[4].offset}".encode()}
    plain.producer.append("dead-letters", b"x", headers=letter)
    answers = [made.trajectory(0) for _ in range(5)]
    for number, places in ((1, answers[:2]), (2, answers[2:4])):
        made.writer = Writer(inside, Wire())
        inside.begin()
        for at in places:
            made.decided(at, number)
        made.step(number, *places)
        first, last = places[0].offset, places[-1].offset + 1
        made.version(number, number - 1, {0: (first, last, []), 1: (0, 0, [])})
        inside.commit()
        made.writer = plain
    return made


@pytest.mark.parametrize("prefix", ["back.", ""])
def test_a_restored_prefix_audits_clean(tmp_path: Path, prefix: str, command: Command) -> None:
    past = history()
    was = past.report()
    assert was.ok and was.feedback.outcomes == {"invalid": 1, "joined": 4}
    assert was.trajectories.outcomes == {"trained": 4}
    command(past.log, "archive", "--to", tmp_path / "kept")
    log = MemoryLog()
    code, said = command(log, "restore", "--from", tmp_path / "kept", "--to-prefix", prefix)
    assert code == 0 and "each as it was archived" in said
    now = read(log, Wire(), model=MODEL, prefix=prefix, deadline=Deadline()).report()
    assert now == was
    chunks = topics.MODEL_CHUNKS.name
    assert there(log, prefix + chunks) == there(past.log, chunks)


def test_what_was_restored_can_be_replayed_in_original_time(tmp_path: Path) -> None:
    story = Story()
    for number in range(6):
        story.feedback(story.turn(), "a", boolean=number % 2 == 0)
        story.run(1)
    story.run(30)
    log, shelf = lay(story), Shelf(str(tmp_path))
    Saver(log, "", shelf).run()
    other = MemoryLog()
    Restorer(other, "back.", shelf).run()
    replayed(other, "back.", "again.").run()
    was = trajectories(rewarded(log, SPEC, "", copy=False))
    for prefix in ("back.", "again."):
        assert trajectories(rewarded(other, SPEC, prefix, copy=True)) == was
    Saver(other, "back.", Shelf(str(tmp_path / "second"))).run()
    third = MemoryLog()
    Restorer(third, "", Shelf(str(tmp_path / "second"))).run()
    assert trajectories(rewarded(third, SPEC, "", copy=True)) == was


def test_a_broken_archive_writes_nothing(tmp_path: Path, command: Command) -> None:
    log = lay(Story())
    log.producer().append("feedback", b"x", partition=0)
    command(log, "archive", "--to", tmp_path / "kept")
    (file,) = (tmp_path / "kept" / "feedback" / "0").iterdir()
    whole = file.read_bytes()
    words = ("restore", "--from", tmp_path / "kept", "--to-prefix", "back.")
    for bad in (whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], None):
        if bad is None:
            file.unlink()
        else:
            file.write_bytes(bad)
        code, said = command(log, *words)
        assert code == 1 and ("sha256" in said or "is missing" in said)
        assert not [name for name in log._topics if name.startswith("back.")]
    file.write_bytes(whole)
    assert command(log, *words)[0] == 0
    code, said = command(log, *words)
    assert code == 1 and "prefix 'back.' is taken" in said
    (tmp_path / "kept" / "manifest-a").write_bytes(b"torn")
    (tmp_path / "kept" / "manifest-b").write_bytes(b"torn")
    code, said = command(log, *words)
    assert code == 1 and "no manifest is whole" in said
    code, said = command(log, "restore", "--from", tmp_path / "no", "--to-prefix", "b.")
    assert code == 1 and "holds no archive" in said
    code, said = command(log, "archive", "--to", "nonsense://x")
    assert code == 1 and "nonsense" in said


def test_what_no_offset_can_be_kept_of_is_refused(tmp_path: Path) -> None:
    log, shelf = MemoryLog(), Shelf(str(tmp_path))
    log.create(topics.TOPICS, session_partitions=1)
    producers = [log.producer(transactional_id=name) for name in ("a", "b")]
    for producer in producers:
        producer.begin()
        producer.append("feedback", b"x", partition=0)
    for producer in producers:
        producer.commit()
    Saver(log, "", shelf).run()
    with pytest.raises(ValueError, match="feedback/0: nothing was between offsets 1 and 4"):
        Restorer(log, "back.", shelf).run()
    assert "back.feedback" not in log._topics


def test_an_open_transaction_is_for_the_next_run(tmp_path: Path) -> None:
    log, shelf = MemoryLog(), Shelf(str(tmp_path))
    log.create(topics.TOPICS, session_partitions=1)
    log.producer().append("receipts", b"before", partition=0)
    inside = log.producer(transactional_id="t")
    inside.begin()
    inside.append("receipts", b"inside", partition=0)
    kept = Saver(log, "", shelf, open_s=0.5).run()
    assert (kept.records, kept.open) == (1, ["receipts/0"])
    inside.commit()
    assert Saver(log, "", shelf).run().records == 1
    Restorer(log, "back.", shelf).run()
    assert [r[3] for r in there(log, "back.receipts", True)] == [b"before", b"inside"]


def test_another_log_is_not_added_to_an_archive(tmp_path: Path) -> None:
    logs = [MemoryLog(), MemoryLog()]
    for number, log in enumerate(logs):
        log.create(topics.TOPICS, session_partitions=1)
        log.producer().append("feedback", b"%d" % number, partition=0)
    shelf = Shelf(str(tmp_path))
    Saver(logs[0], "", shelf).run()
    with pytest.raises(BrokenArchive, match="holds prefix '', not 'other.'"):
        Saver(logs[1], "other.", shelf).run()
    logs[1].producer().append("feedback", b"more", partition=0)
    with pytest.raises(BrokenArchive, match="feedback/0/0 is another record"):
        Saver(logs[1], "", shelf).run()
    empty = MemoryLog()
    empty.create(topics.TOPICS, session_partitions=1)
    with pytest.raises(BrokenArchive, match="ends at 0, the archive has 1: another log"):
        Saver(empty, "", shelf).run()
    assert shelves.Manifest(prefix="").format == 1
