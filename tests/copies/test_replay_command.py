"""``tailrace replay --to-prefix``: what it says, what it refuses, at what pace it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.errors import LogError
from tailrace.log.memory import MemoryLog, MemoryProducer
from tailrace.replaying.merge import Merge
from tailrace.replaying.plan import begin, found
from tailrace.replaying.replayer import Replayer
from tailrace.replaying.stretch import planned
from tests.copies.conftest import Command
from tests.copies.past import lay, replayed
from tests.rewards.history import START_MS
from tests.rewards.test_join import Story


@pytest.fixture
def past() -> MemoryLog:
    """Ten turns, a second apart."""
    story = Story()
    for number in range(10):
        story.feedback(story.turn(f"default:s{number % 2}"), "a")
        story.run(1)
    return lay(story)


def test_it_says_exactly_what_it_copied(past: MemoryLog, command: Command) -> None:
    code, said = command(past, "replay", "--to-prefix", "again.")
    assert code == 0 and "prompts: 10\n" in said and "40 records under again.\n" in said
    assert "40 of 40 (100%)" in said
    words = ("--filter", "session=*:s1", "--since", START_MS, "--json")
    result = command(past, "replay", "--to-prefix", "half.", *words)
    assert result["done"]["records"] == {"prompts": 5, "outputs": 5, "feedback": 5, "ticks": 10}
    assert result["done"]["left_out"]["prompts"] == 5
    assert result["plan"]["since_ms"] == START_MS
    again = command(past, "replay", "--to-prefix", "half.", "--resume", "--json")
    assert again == result
    assert past.ends("half.prompts") == {0: 5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "prefix '' is the original's own"),
        (("--prefix", "again."), "prefix 'again.' is the original's own"),
        (("--speed", "fast"), "'fast' is neither a number above 0 nor max"),
        (("--filter", "colour=red"), "'colour=red' is no filter"),
        (("--from-offset", "prompts/0/10"), "prompts/0/10 is not there: the end is 10"),
        (("--from-offset", "steps/0/1"), "no place of prompts, outputs or feedback"),
        (("--from-offset", "prompts/7/1"), "prompts has no partition 7"),
        (("--since", START_MS + 10**9), "there is no record in that stretch"),
        (("--since", "5m", "--until", "10m"), "--since is not before --until"),
        (("--since", "tomorrow"), "'tomorrow' is no time"),
        (("--resume",), "prefix 'again.' holds no replay to go on with"),
        (("--resume", "--since", "1h"), "--since does not go with --resume"),
        (("--events",), "--events does not go with --to-prefix"),
        (("--train",), "--to-prefix does not go with --train"),
    ],
)
def test_what_cannot_be_is_refused(
    past: MemoryLog, command: Command, words: tuple[str, ...], said: str
) -> None:
    prefix = "again." if words else ""
    code, heard = command(past, "replay", "--to-prefix", prefix, *words)
    assert code in (1, 2) and said in heard
    assert not [name for name in past._topics if name.startswith("again.")]


def test_what_has_expired_is_refused(past: MemoryLog, command: Command) -> None:
    past.delete_before("outputs", {0: 4})
    to = ("replay", "--to-prefix", "again.")
    code, said = command(past, *to, "--since", START_MS + 1000)
    assert code == 1
    assert "outputs/0: what came before offset 4 has expired, the oldest kept is of 20" in said
    assert "outputs/0/3 has expired" in command(past, *to, "--from-offset", "outputs/0/3")[1]
    assert command(past, *to, "--since", START_MS + 4000)[0] == 0
    kept = ("replay", "--to-prefix", "kept.", "--since", START_MS, "--kept", "--json")
    assert command(past, *kept)["done"]["records"]["outputs"] == 6
    past.delete_before("outputs", {0: 10})
    assert "nothing is kept" in command(past, "replay", "--to-prefix", "b.", "--since", "1h")[1]


def test_what_expires_before_it_is_copied_is_said(past: MemoryLog) -> None:
    replayer = replayed(past, "", "again.")
    past.delete_before("outputs", {0: 4})
    with pytest.raises(ValueError, match="outputs/0: offsets from 0 to 4 have expired"):
        replayer.run()
    assert found(past, "again.")[1] is None


def test_a_prefix_that_exists_is_refused(past: MemoryLog, command: Command) -> None:
    assert command(past, "replay", "--to-prefix", "again.")[0] == 0
    code, said = command(past, "replay", "--to-prefix", "again.")
    assert code == 1 and "prefix 'again.' is taken" in said
    other = ("replay", "--prefix", "again.", "--to-prefix", "more.")
    assert command(past, *other)[0] == 0
    code, said = command(past, "replay", "--to-prefix", "more.", "--resume")
    assert code == 1 and "holds a replay of prefix 'again.'" in said


def test_a_broker_that_goes_away(
    past: MemoryLog, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, append = [17], MemoryProducer.append

    def fails(self, *given, **more):  # type: ignore[no-untyped-def]
        left[0] -= given[0] == "again.ticks"
        if not left[0]:
            raise LogError("again.ticks: away")
        return append(self, *given, **more)

    left[0] = 4
    monkeypatch.setattr(MemoryProducer, "append", fails)
    code, said = command(past, "replay", "--to-prefix", "again.")
    assert code == 1 and "again.ticks: away" in said and "--resume goes on" in said
    monkeypatch.undo()
    result = command(past, "replay", "--to-prefix", "again.", "--resume", "--json")
    assert result["done"]["records"] == dict.fromkeys(
        ("prompts", "outputs", "feedback", "ticks"), 10
    )


def test_a_record_that_was_lost_or_that_others_wrote_is_found(past: MemoryLog) -> None:
    replayed(past, "", "again.").run()
    plan = found(past, "again.")[0]
    assert plan is not None
    entries = past._topics["again.prompts"][0].entries
    lost = entries.pop(4)
    entries[-1].record = type(lost.record)(
        **{f: getattr(entries[-1].record, f) for f in lost.record.__struct_fields__} | {"offset": 8}
    )
    with pytest.raises(LogError, match="again.prompts/0/8 is number 9 of its partition"):
        Replayer(past, plan, "again.").run()
    past.producer().append("again.feedback", b"{}", partition=0)
    with pytest.raises(LogError, match="again.(prompts|feedback)/0/.*another prefix"):
        Replayer(past, plan, "again.").run()


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_the_pace_is_that_of_its_time(past: MemoryLog, speed: float) -> None:
    plan = planned(past, "", now_ms=START_MS)
    begin(past, "slow.", plan)
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        slept.append(past.ends("slow.prompts")[0])

    Replayer(past, plan, "slow.", speed=speed, clock=lambda: now[0], sleep=sleep).run()
    assert now[0] == pytest.approx(10 / speed)
    assert slept == sorted(slept) and slept[0] == 1 and slept[-1] == 10


def test_reading_ahead_is_bounded() -> None:
    log = MemoryLog()
    from tailrace import topics

    log.create(topics.TOPICS, session_partitions=3)
    producer = log.producer()
    for number in range(30_000):
        producer.append("prompts", b"x" * 100, partition=number % 2)
    producer.append("prompts", b"last", partition=2)
    starts = {("prompts", p): 0 for p in range(3)}
    ends = {("prompts", p): end for p, end in log.ends("prompts").items()}
    merge = Merge(log, starts, ends, ahead_bytes=1_000_000)
    head = merge.head(("prompts", 2))
    assert head is not None and head.value == b"last"
    assert sum(map(len, merge._waiting.values())) < 12_000
    seen = {key: 0 for key in starts}
    for key in starts:
        while (record := merge.head(key)) is not None:
            assert merge.take(key) is record and record.offset == seen[key]
            seen[key] += 1
    assert seen == ends
    merge.close()


def test_the_settings_of_a_state_directory_are_found(
    past: MemoryLog, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text('prefix = "live."\n')
    code, said = command(past, "replay", "--settings", "s.toml", "--to-prefix", "live.")
    assert code == 1 and "is the original's own" in said
