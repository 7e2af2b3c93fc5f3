"""The conservation table beside the audit, which recounts the log from its beginning."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.dashboard.board import READ, Board
from services.dashboard.conservation import Answers
from services.dashboard.settings import Settings
from services.dashboard.system import Account
from tailrace import audit, events, topics
from tailrace.errors import InvalidRecord
from tailrace.log.base import LogRecord
from tailrace.stream import Decoder, read_all
from tailrace.topics import by_name
from tailrace.wire import Wire
from tests.dashboard.life import MODEL, Life

WIRE = Wire()
LATER_MS = 3_600_000


def records(life: Life) -> dict[tuple[str, int], deque[LogRecord]]:
    """Everything on the log, by partition."""
    found: dict[tuple[str, int], deque[LogRecord]] = defaultdict(deque)
    for topic in READ:
        for record in read_all(life.log, topic.name, committed_only=topic.transactional):
            found[record.topic, record.partition].append(record)
    return found


def fed(life: Life, chance: random.Random, twice: float = 0.0, **changes: Any) -> Board:
    """A board that was given every record, partitions in any order, some records again."""
    board = Board(Settings(**changes))
    decoder = Decoder(life.log, WIRE)
    queues = records(life)
    while queues:
        place = chance.choice(sorted(queues))
        record = queues[place].popleft()
        topic = by_name(record.topic)
        event: object = None
        if topic.record is not None:
            try:
                event = decoder.decode(record)
            except InvalidRecord as error:
                event = error
        for _ in range(1 + (chance.random() < twice)):
            board.on_record(topic, record, event)  # type: ignore[arg-type]
        if chance.random() < 0.1:
            board.sections(life.now_ms)
        if not queues[place]:
            del queues[place]
    return board


def account(board: Board, now_ms: int) -> Account:
    found = board.sections(now_ms)["account"]
    assert isinstance(found, Account)
    return found


def line(found: Account, name: str) -> dict[str, object]:
    (one,) = [one for one in found.lines if one.name == name]
    assert one.unaccounted == 0
    return {"records": one.records, "outcomes": one.outcomes, "in_flight": one.in_flight} | (
        {"missing": one.missing} if one.missing else {}
    )


def audited(life: Life) -> dict[str, dict[str, object]]:
    report = audit.read(life.log, WIRE, model=MODEL).report()
    found = {}
    for name, one in (("feedback", report.feedback), ("trajectories", report.trajectories)):
        found[name] = {
            "records": one.records,
            "outcomes": one.outcomes,
            "in_flight": one.in_flight,
        } | ({"missing": one.missing} if one.missing else {})
    return found


def lived(chance: random.Random) -> Life:
    """A random past: votes, trajectories, versions, rollbacks, losses."""
    life = Life()
    said, made, head, newest, taken = [], [], 0, 0, 0
    ends = {0: 0, 1: 0}
    for _ in range(chance.randrange(1, 25)):
        life.now_ms += chance.randrange(0, 5000)
        match chance.choice(("say", "join", "reward", "train", "back", "letter", "foreign")):
            case "say":
                said.append(life.say(life.ask(session=f"default:{chance.choice('abc')}")))
            case "join" if said:
                name, at = said.pop(chance.randrange(len(said)))
                outcome = chance.choice(("joined", "late", "orphan"))
                life.receipt(at, name, outcome)
                if chance.random() < 0.2:
                    life.receipt(at, name, outcome)
            case "reward":
                turn = life.ask(session=f"default:{chance.choice('abc')}")
                made.append(life.reward(turn, chance.choice((1.0, -1.0, None))))
            case "train":
                newest += 1
                for name, at in made[taken:]:
                    ends[at.partition] = max(ends[at.partition], at.offset + 1)
                    if chance.random() < 0.9:
                        outcome = chance.choice(("trained", "stale"))
                        life.receipt(at, name, outcome, version=newest)
                taken = len(made)
                life.version(newest, head, dict(ends))
                head = newest
            case "back" if newest:
                life.writer.write(
                    topics.RELEASES,
                    events.Release(
                        model=MODEL,
                        event_time_ms=life.now_ms,
                        live=0,
                        withdrawn_to=newest,
                        data="retrain",
                    ),
                )
                head, taken, ends = 0, 0, {0: 0, 1: 0}
            case "letter" if said:
                _, at = said.pop()
                source = f"feedback/{at.partition}/{at.offset}".encode()
                life.producer.append("dead-letters", b"x", headers={"tailrace-source": source})
            case "foreign":
                topic = chance.choice(READ)
                life.producer.append(topic.name, chance.randbytes(20), key=b"default:a")
    return life


@settings(max_examples=30)
@given(st.integers(0, 2**32).map(random.Random))
def test_it_says_what_the_audit_says_in_whatever_order_topics_are_read(
    chance: random.Random,
) -> None:
    life = lived(chance)
    board = fed(life, chance)
    found = account(board, life.now_ms + LATER_MS)
    expected = audited(life)
    for name in ("feedback", "trajectories"):
        assert line(found, name) == expected[name]


@settings(max_examples=30)
@given(st.integers(0, 2**32).map(random.Random))
def test_it_adds_up_whatever_comes_twice_and_however_little_is_remembered(
    chance: random.Random,
) -> None:
    life = lived(chance)
    board = fed(life, chance, 0.3, remembered=2, in_flight_limit=2, versions_shown=2, windows=1)
    for one in account(board, life.now_ms + LATER_MS).lines:
        assert one.unaccounted == 0 and one.in_flight >= 0
    board.traffic(life.now_ms)


def test_a_receipt_that_never_came_is_missing_once_its_version_is_old() -> None:
    life = Life()
    _, at = life.reward(life.ask(), 1.0)
    life.version(1, 0, {at.partition: at.offset + 1})
    board = fed(life, random.Random(0))
    assert line(account(board, life.now_ms), "trajectories")["in_flight"] == 1
    found = account(board, life.now_ms + LATER_MS)
    assert line(found, "trajectories")["missing"] == 1 and not found.balanced


def test_feedback_that_rewards_passed_by_is_missing() -> None:
    life = Life()
    _, at = life.say(life.ask())
    life.now_ms += 8_000_000
    tick = events.Tick(partition=at.partition, event_time_ms=life.now_ms)
    life.writer.write(topics.TICKS, tick, partition=at.partition)
    found = account(fed(life, random.Random(0)), life.now_ms)
    assert line(found, "feedback")["missing"] == 1
    turn = life.ask()
    life.answer(turn)
    life.now_ms += 8_000_000
    life.answer(life.ask(session="default:t"))
    patient = fed(life, random.Random(0), decide_within_s=20_000.0)
    assert account(patient, life.now_ms).balanced
    assert line(account(patient, life.now_ms), "answers")["in_flight"] == 2


def test_the_oldest_in_flight_is_the_oldest_whatever_was_read_first() -> None:
    life = Life()
    early = life.now_ms
    for session in ("default:a", "default:b"):
        turn = life.ask(session=session)
        life.answer(turn)
        life.say(turn)
        life.reward(turn, 1.0)
        life.now_ms += 1000
    board, decoder, found = Board(Settings()), Decoder(life.log, WIRE), records(life)
    rows = [record for queue in found.values() for record in queue]
    for record in sorted(rows, key=lambda record: -record.time_ms):
        topic = by_name(record.topic)
        board.on_record(topic, record, decoder.decode(record) if topic.record else None)
    lines = {one.name: one.oldest_ms for one in account(board, life.now_ms).lines}
    assert lines["feedback"] == lines["trajectories"] == early
    tally = Answers(10, 10, Counter())
    for time_ms in (2, 1):
        tally.output((str(time_ms), 0), time_ms)
    assert tally.line().oldest_ms == 1


def test_answers_are_in_flight_until_a_trajectory_holds_them() -> None:
    life = Life()
    first, second = life.ask(), life.ask(session="default:t")
    life.answer(first)
    life.answer(second)
    life.answer(second)
    life.reward(first, 1.0)
    found = account(fed(life, random.Random(0)), life.now_ms)
    assert line(found, "answers") == {
        "records": 3,
        "outcomes": {"closed": 1, "duplicate": 1},
        "in_flight": 1,
    }
    life.now_ms += 8_000_000
    life.answer(life.ask())
    found = account(fed(life, random.Random(0)), life.now_ms)
    assert line(found, "answers")["outcomes"] == {"closed": 1, "duplicate": 1, "given_up": 1}
