"""What a trainer counts of the records that it reads."""

from __future__ import annotations

from prometheus_client import REGISTRY

from tailrace import topics
from tests.trainer.conftest import Mill
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
