"""Dead letters of a copy, brought back there: in original time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.archive.restoring import Restorer
from tailrace.archive.saving import Saver
from tailrace.archive.shelf import Shelf
from tailrace.errors import LogError
from tailrace.log.memory import MemoryLog
from tailrace.replaying.plan import found
from tailrace.replaying.replayer import Replayer
from tailrace.stream import Writer, read_all
from tailrace.wire import Wire
from tests.copies.conftest import Command
from tests.copies.past import lay, replayed
from tests.rewards.history import START_MS
from tests.rewards.test_join import Story


def bury(log: MemoryLog, prefix: str) -> None:
    """The newest feedback is a dead letter."""
    *_, record = read_all(log, f"{prefix}feedback")
    Writer(log.producer(), Wire(), prefix=prefix).bury(record, "not_avro").result()


def past() -> MemoryLog:
    """One turn, and feedback that is no feedback, of one moment."""
    story = Story()
    story.feedback(story.turn(), "a")
    log = lay(story)
    log._clock_ms = lambda: START_MS + 500
    log.producer().append("feedback", b"nonsense", partition=0, headers={"own": b"1"})
    log._clock_ms = lambda: START_MS + 10**8
    return log


def brought_back(log: MemoryLog, prefix: str, command: Command) -> dict[str, bytes]:
    """The headers of one that is brought back, number aside."""
    code, said = command(log, "dead-letters", "replay", "0", "--prefix", prefix)
    assert code == 0 and "1 records appended again" in said
    *_, last = read_all(log, f"{prefix}feedback")
    assert last.value == b"nonsense"
    return {name: value for name, value in last.headers.items() if name != "tailrace-number"}


def test_what_a_replay_could_not_use_comes_back_in_original_time(command: Command) -> None:
    log = past()
    replayed(log, "", "again.").run()
    bury(log, "again.")
    time = b"%d" % (START_MS + 500)
    assert brought_back(log, "again.", command) == {"own": b"1", "tailrace-time-ms": time}
    plan = found(log, "again.")[0]
    assert plan is not None
    with pytest.raises(LogError, match="was not written by a replay"):
        Replayer(log, plan, "again.").run()


@pytest.mark.parametrize("before", [True, False])
def test_so_does_what_was_restored(before: bool, tmp_path: Path, command: Command) -> None:
    log, shelf = past(), Shelf(str(tmp_path / "kept"))
    if before:
        bury(log, "")
    Saver(log, "", shelf).run()
    Restorer(log, "back.", shelf).run()
    if not before:
        bury(log, "back.")
    time = b"%d" % (START_MS + 500)
    assert brought_back(log, "back.", command) == {"own": b"1", "tailrace-time-ms": time}


def test_where_the_record_expired_or_is_no_copy_there_is_none(command: Command) -> None:
    log = past()
    bury(log, "")
    assert brought_back(log, "", command) == {"own": b"1"}
    replayed(log, "", "again.").run()
    bury(log, "again.")
    log.delete_before("again.feedback", log.ends("again.feedback"))
    assert brought_back(log, "again.", command) == {"own": b"1"}
