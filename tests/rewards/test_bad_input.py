"""What does not belong on the topics, met by the real worker: all is answered, nothing kills it."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

import pytest

from tailrace import events, topics
from tailrace.partition import partition_of
from tailrace.stream import read_all
from tests.rewards.worker import PARTITIONS, Bench, Worker

pytestmark = pytest.mark.kafka
JSON = {"content-type": b"application/json"}


@pytest.fixture
def bench(broker: Any, prefix: str) -> Iterator[Bench]:
    made = Bench(broker.bootstrap, prefix)
    yield made
    made.close()


@pytest.fixture
def worker(broker: Any, prefix: str, tmp_path: Path) -> Iterator[Worker]:
    # Long enough for feedback that is written record by record on a busy machine.
    spec = "wait_s = 6\norphan_s = 6\n[metrics.thumbs]\n"
    made = Worker(tmp_path, broker.bootstrap, prefix, spec=spec)
    made.start()
    yield made
    made.kill()


def test_bad_records_are_answered_and_buried(bench: Bench, worker: Worker) -> None:
    session = "default:bad"
    home = partition_of(session.encode(), PARTITIONS)
    feedback = bench.prefix + "feedback"
    interaction = bench.turn(session)

    def raw(value: bytes | None, topic: str = feedback, **given: Any) -> tuple[int, int]:
        keywords = {"key": session.encode(), "partition": home} | given
        done = bench.producer.append(topic, value, **keywords).result(10)
        return done.partition, done.offset

    def encoded(**fields: Any) -> bytes:
        fitting = {
            "feedback_id": f"{interaction}!{len(wanted)}",
            "interaction_id": interaction,
            "event_time_ms": 1,
            "kind": "number",
            "metric": "thumbs",
            "number": 1.0,
        }
        return bench.wire.encode(events.Feedback(**(fitting | fields)))

    wanted: dict[tuple[int, int], tuple[str, str | None]] = {}
    wanted[raw(b"\xc3\x01")] = ("invalid", "not_avro")
    wanted[raw(None)] = ("invalid", "empty")
    wanted[raw(b"\xc3\x01" + b"\0" * 8 + b"body")] = ("invalid", "unknown_schema")
    wanted[raw(encoded()[:-3])] = ("invalid", "undecodable")
    wanted[raw(encoded(number=float("nan")))] = ("invalid", "not_finite")
    wanted[raw(encoded(), partition=1 - home)] = ("invalid", "misplaced")
    wanted[raw(encoded(tenant="acme"))] = ("foreign", "foreign")
    wanted[raw(encoded(feedback_id="no id"))] = ("invalid", "id")
    wanted[raw(b"{", headers=JSON)] = ("invalid", "json")
    wanted[raw(b"\xff", key=None, partition=home)] = ("invalid", "not_avro")
    headers = {"h": b"h" * 100_000}  # the letter's own headers have no room beside it
    whole = b"\xff" * (topics.MAX_RECORD_BYTES - 100_000 - 150)
    wanted[raw(whole, headers=headers)] = ("invalid", "not_avro")
    document = {"inference_id": interaction, "metric_name": "thumbs", "value": True}
    good = raw(json.dumps(document | {"feedback_id": "good"}).encode(), headers=JSON)
    wanted[good] = ("joined", None)
    letters = {
        ("feedback", *place) for place, (outcome, _) in wanted.items() if outcome != "joined"
    }
    for topic in ("prompts", "outputs", "ticks"):
        letters.add((topic, *raw(b"rubbish", topic=bench.prefix + topic)))
    prompt = events.Prompt(interaction_id=interaction, session_id="acme:x", event_time_ms=1)
    done = bench.writer.write(topics.PROMPTS, prompt, partition=home)
    letters.add(("prompts", home, done.result(10).offset))

    def found() -> dict[tuple[int, int], tuple[str, str | None]]:
        receipts = {}
        for place, values in bench.receipts().items():
            (value,) = values
            receipt = bench.wire.decode(events.Receipt, value)
            receipts[place] = receipt.outcome, receipt.reason
        return receipts

    bench.await_true(lambda: len(found()) == len(wanted), worker)
    assert found() == wanted
    buried = set()
    for record in read_all(bench.log, bench.prefix + "dead-letters"):
        topic, partition, offset = record.headers["tailrace-source"].decode().rsplit("/", 2)
        assert record.headers["tailrace-reason"]
        buried.add((topic.removeprefix(bench.prefix), int(partition), int(offset)))
    assert buried == letters
    assert worker.ended() is None


def test_control_records_do_not_stop_the_clock(bench: Bench, worker: Worker) -> None:
    """Feedback of a transactional producer: the end offset is never delivered."""
    interaction = bench.turn("default:tx")
    bench.producer.flush()
    writing = bench.log.producer(transactional_id=f"{bench.prefix}anyone")
    writing.begin()
    feedback = events.Feedback(
        feedback_id=f"{interaction}!tx",
        interaction_id=interaction,
        event_time_ms=1,
        kind="boolean",
        metric="thumbs",
        boolean=True,
    )
    writing.append(
        bench.prefix + "feedback",
        bench.wire.encode(feedback),
        key=b"default:tx",
    )
    writing.commit()
    writing.close()
    bench.await_true(lambda: bench.outcomes() == {"tx": ["joined"]}, worker)
    (trajectory,) = bench.trajectories().values()
    assert trajectory.reward == 1.0
