"""What a trainer counts of the records that it reads, and buries of them."""

from __future__ import annotations

from prometheus_client import REGISTRY

from tailrace import topics
from tailrace.stream import read_all
from tests.trainer.conftest import Mill
from tests.trainer.test_intake import Reading
from tests.trainer.traffic import trajectory


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tailrace_trainer_{name}", labels) or 0.0


def test_a_record_that_is_none_is_counted_with_the_dead_letters(mill: Mill) -> None:
    labels = {"topic": "trajectories", "reason": "not_avro"}
    before = sample("dead_letters_total", **labels)
    producer = mill.log.producer()
    producer.append(topics.TRAJECTORIES.name, b"no avro", key=b"default:s1").result(10)
    producer.close()
    mill.put(trajectory(1))
    trainer = mill.trainer()
    trainer.turn()
    assert sample("dead_letters_total", **labels) == before + 1
    assert sample("decisions_total", outcome="untrainable", reason="invalid") >= 1


def test_its_lag_is_the_age_of_the_newest_trajectory(mill: Mill) -> None:
    mill.put(trajectory(1))
    mill.clock.now_s += 90.0
    trainer = mill.trainer()
    trainer.turn()
    assert sample("lag_seconds") == 90.0


def test_what_was_buried_is_not_buried_again_by_the_next_trainer(mill: Mill) -> None:
    mill.put(trajectory(1))  # held by the version that decides what lies behind it
    producer = mill.log.producer()
    for partition in range(2):
        producer.append(topics.TRAJECTORIES.name, b"no avro", partition=partition).result(10)
    producer.close()
    trainer = mill.trainer()
    trainer.turn(0.0)
    mill.clock.now_s += mill.settings.account_s
    trainer.turn(0.0)
    assert [len(r.held) for r in trainer.head.ranges if r.held] == [1]
    mill.lose(trainer)
    mill.trainer().turn(0.0)
    assert len(list(read_all(mill.log, topics.DEAD_LETTERS.name))) == 2


def test_an_answer_whose_place_a_revision_takes_is_counted(mill: Mill) -> None:
    labels = {"outcome": "superseded", "reason": "revision"}
    before = sample("decisions_total", **labels)
    first = trajectory(1)
    revision = trajectory(1, trajectory_id="revision", supersedes=first.trajectory_id)
    mill.put(first, revision)
    mill.trainer().turn(0.0)
    assert sample("decisions_total", **labels) == before + 1


def test_expired_records_are_said_by_range() -> None:
    reading = Reading()
    reading.offer(trajectory(0))
    reading.intake.account()
    reading.intake.published()
    assert reading.intake.ranges.expire({0: 7}) == 6
    [one] = reading.intake.account().ranges
    assert (one.start, one.end, one.held, one.expired_to) == (1, 7, [0], 7)


def test_records_that_expire_unread_are_counted_and_said_though_none_follows(mill: Mill) -> None:
    before = sample("expired_total")
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn(0.0)
    mill.put(*(trajectory(n) for n in range(8, 12)))
    ends = mill.log.ends(topics.TRAJECTORIES.name)
    read = {r.partition: r.end for r in trainer.head.ranges}
    mill.log.delete_before(topics.TRAJECTORIES.name, ends)
    trainer.turn(0.0)
    assert sample("expired_total") == before + 4
    mill.put(*(trajectory(n) for n in range(12, 20)))
    assert trainer.turn(0.0)
    gone = {r.partition: r.expired_to for r in trainer.head.ranges if r.expired_to is not None}
    assert gone == {p: end for p, end in ends.items() if end > read[p]}
    assert mill.audit().ok
