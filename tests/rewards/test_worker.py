"""The real worker on a real broker: Faust, table, ticks, kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local.ports import free_port
from services.rewards.producer import EXIT_CODE
from tailrace import topics
from tailrace.stream import read_all
from tailrace.topics import named
from tests.rewards.worker import Bench, Worker
from tests.traces.receiver import TRACE, Receiver, context_of, receiving

pytestmark = pytest.mark.kafka


@pytest.fixture
def bench(broker: Any, prefix: str) -> Iterator[Bench]:
    made = Bench(broker.bootstrap, prefix)
    yield made
    made.close()


@pytest.fixture
def worker(broker: Any, prefix: str, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path, broker.bootstrap, prefix)
    yield made
    made.kill()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Where workers send their spans."""
    with receiving() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


def test_feedback_becomes_a_reward_and_its_trace_goes_on(
    bench: Bench, worker: Worker, receiver: Receiver
) -> None:
    worker.start()
    liked = bench.turn("default:s0", ("a", True), trace=TRACE)
    disliked = bench.turn("default:s1", ("b", False))
    silent = bench.turn("default:s2")
    bench.producer.flush()
    bench.await_true(lambda: len(bench.trajectories()) == 3, worker)
    rewards = {t.interaction_id: t.reward for t in bench.trajectories().values()}
    assert rewards == {liked: 1.0, disliked: -1.0, silent: None}
    assert bench.outcomes() == {"a": ["joined"], "b": ["joined"]}
    assert worker.stop() == 0
    records = read_all(bench.log, named(topics.TRAJECTORIES, bench.prefix))
    traces = {record.headers.get("traceparent") for record in records}
    assert traces == {None, TRACE.encode()}
    spans = {span.attributes["tailrace.interaction_id"]: span for span in receiver.spans(3)}
    assert spans[liked].links == [context_of(TRACE)] and not spans[silent].links


STEPS = ("read", "stored", "emitted", "flushing", "flushed", "committed")


def test_killed_at_every_step(broker: Any, bench: Bench, prefix: str, tmp_path: Path) -> None:
    """One history, a kill at each step and with each kind of loss; nothing is missing or twice."""
    worker = Worker(tmp_path, broker.bootstrap, prefix, instance="one")
    given: dict[str, float] = {}
    for number, step in enumerate((*STEPS, "lose changelog", "lose outputs")):
        (tmp_path / "step").write_text(step)
        worker.start("tests.rewards.killed")
        for turn in range(3):
            up = (number + turn) % 2 == 0
            interaction = bench.turn(f"default:{number}-{turn}", (f"f{number}-{turn}", up))
            given[interaction] = 1.0 if up else -1.0
        bench.producer.flush()
        bench.await_true(lambda: worker.ended() is not None, worker)
        assert worker.ended() == -9, worker.log_file.read_text()[-3000:]
    worker.start()
    bench.await_true(lambda: len(bench.outcomes()) == len(given), worker)
    rewards = {t.interaction_id: (t.reward, t.revision) for t in bench.trajectories().values()}
    assert worker.stop() == 0
    assert rewards == {interaction: (reward, 0) for interaction, reward in given.items()}
    assert all(outcomes == ["joined"] for outcomes in bench.outcomes().values())
    assert set(bench.receipts()) == bench.feedback_places()


@pytest.mark.parametrize("lost", ["first", "all"])
def test_a_record_that_the_consumer_loses_ends_the_worker(
    bench: Bench, worker: Worker, lost: str
) -> None:
    (worker.folder / "lost").write_text(lost)
    given = [bench.turn("default:s", (f"f{n}", True)) for n in range(3)]
    bench.producer.flush()
    worker.start("tests.rewards.skipping")
    bench.await_true(lambda: worker.ended() is not None, worker)
    assert worker.ended() == EXIT_CODE, worker.log_file.read_text()
    assert not bench.receipts()
    worker.start()
    bench.await_true(lambda: len(bench.outcomes()) == 3, worker)
    assert {t.interaction_id for t in bench.trajectories().values()} == set(given)
    assert worker.stop() == 0


def test_an_assignment_that_never_ends_ends_the_worker(
    broker: Any, bench: Bench, prefix: str, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, broker.bootstrap, prefix, stall_s=1.5)
    interaction = bench.turn("default:s", ("f", True))
    bench.producer.flush()
    try:
        worker.start("tests.rewards.hanging")
        bench.await_true(lambda: worker.ended() is not None, worker)
        assert worker.ended() == EXIT_CODE
        assert "the assignment has stayed at rebalance" in _log(worker)
        worker.start()
        bench.await_true(lambda: bench.outcomes() == {"f": ["joined"]}, worker)
        assert {t.interaction_id for t in bench.trajectories().values()} == {interaction}
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_another_worker_takes_over(broker: Any, bench: Bench, prefix: str, tmp_path: Path) -> None:
    workers, where = [], (broker.bootstrap, prefix)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        workers.append(Worker(tmp_path / name, *where, metrics_port=free_port()))
    first, second = workers
    try:
        first.start()
        early = [bench.turn(f"default:{n}") for n in range(8)]
        bench.producer.flush()
        bench.await_true(lambda: len(bench.trajectories()) == 8, first)
        second.start()
        for number, interaction in enumerate(early):  # corrections, while partitions move
            bench.thumb(interaction, f"late{number}")
        bench.producer.flush()
        bench.await_true(lambda: len(bench.outcomes()) == 8, second)
        bench.await_true(lambda: "partitions=[0]" in _log(second) + _log(first), second)
        second.kill()
        for number, interaction in enumerate(early):
            bench.thumb(interaction, f"later{number}", up=False)
        bench.producer.flush()
        bench.await_true(lambda: len(bench.outcomes()) == 16, first)
        # Of both partitions: prompts, outputs, words and what was decided.
        assert first.gauge("tailrace_rewards_table_values") > 4 * 8
        assert first.gauge("tailrace_rewards_table_bytes") > 4 * 8 * 50
    finally:
        for worker in workers:
            worker.kill()
    assert all(outcomes == ["corrected"] for outcomes in bench.outcomes().values())
    newest = {}
    for one in sorted(bench.trajectories().values(), key=lambda t: t.revision):
        assert one.supersedes == (
            newest[one.interaction_id].trajectory_id if one.revision else None
        )
        newest[one.interaction_id] = one
    assert {t.reward for t in newest.values()} == {-1.0}


def _log(worker: Worker) -> str:
    return worker.log_file.read_text() if worker.log_file.exists() else ""
