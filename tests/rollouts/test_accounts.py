"""From a rollout to the weights: rewards make a trajectory of each answer, the trainer takes the
groups whole, and the audit finds every record accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.rewards import offline, spec
from services.rewards.emission import Send
from services.rewards.ticks import INPUTS
from services.rollouts import records
from services.rollouts.desk import Group
from services.rollouts.schedule import Item
from tailrace import events, ids, topics
from tailrace.events import VersionSpan
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import Topic
from tailrace.wire import Wire
from tests.rollouts.scene import a_benchmark, an_answer
from tests.trainer.conftest import Clock, Mill
from tests.trainer.lives import run

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
GROUPS, SIZE = 4, 4
MODEL = "tiny"
NOW_MS = 1_700_001_000_000
TOPICS: dict[type[events.Struct], Topic] = {
    events.Prompt: topics.PROMPTS,
    events.Output: topics.OUTPUTS,
    events.Feedback: topics.FEEDBACK,
    events.Trajectory: topics.TRAJECTORIES,
    events.Receipt: topics.RECEIPTS,
}


@pytest.fixture
def log(tmp_path: Path) -> MemoryLog:
    """What rollouts and rewards leave."""
    made = MemoryLog(lambda: NOW_MS)
    made.create(topics.TOPICS, session_partitions=PARTITIONS)
    producer = made.producer()
    writer = Writer(producer, Wire(), source="rollouts")
    for number in range(GROUPS):
        for record in rollout(tmp_path / "sums", number):
            writer.write(TOPICS[type(record)], record)
    rewarded(made, writer)
    producer.close()
    return made


def rollout(folder: Path, number: int) -> list[events.Prompt | events.Output | events.Feedback]:
    """A group of which every other answer is right."""
    benchmark = a_benchmark(folder)
    spans = [VersionSpan(version=0, start=0, end=3)]
    answers = [an_answer(f"{n}", spans=spans) for n in range(SIZE)]
    group = Group(number, Item(benchmark, benchmark.tasks[0]), NOW_MS, [*answers], [0] * SIZE)
    return records.of_group(
        group,
        [float(n % 2) for n in range(SIZE)],
        tenant="acme",
        identity="0123456789ab",
        model=MODEL,
        temperature=1.0,
    )


def rewarded(log: MemoryLog, writer: Writer) -> None:
    """What the reward workers write, by the spec that comes with the tasks."""
    rules = spec.load(ROOT / "examples/tasks/rewards.toml")
    ends = {kind: log.ends(kind) for kind in INPUTS}
    for partition in range(PARTITIONS):
        until = {kind: ends[kind][partition] for kind in INPUTS}
        tick = events.Tick(partition=partition, event_time_ms=NOW_MS, ends=until)
        writer.write(topics.TICKS, tick, partition=partition)
        reads = {kind: _of(log, kind, partition) for kind in (*INPUTS, topics.TICKS.name)}
        for out in offline.run(rules, partition, PARTITIONS, reads):
            assert isinstance(out, Send), out
            key = (out.key or b"").decode()
            writer.write(TOPICS[type(out.record)], out.record, key=key, partition=out.partition)


def _of(log: MemoryLog, topic: str, partition: int) -> Iterator[offline.Read]:
    decoder = Decoder(log, Wire())
    mine = {partition: log.ends(topic)[partition]}
    for record in read_all(log, topic, ends=mine):
        yield record, decoder.decode(record)


def test_each_answer_becomes_one_trajectory_of_its_group(log: MemoryLog) -> None:
    made = [trajectory for trajectory, _ in placed(log)]
    assert len(made) == GROUPS * SIZE and all(t.revision == 0 for t in made)
    for group in {t.group_id for t in made}:
        members = [t for t in made if t.group_id == group]
        assert sorted(t.reward or 0.0 for t in members) == [-1.0, -1.0, 1.0, 1.0]
        assert {(t.group_size, t.task, t.learn) for t in members} == {(SIZE, "sums", True)}
        assert {ids.session_of(t.interaction_id) for t in members} == {group}


def test_the_audit_finds_each_record_accounted_for(
    log: MemoryLog, tiny_model: Path, tmp_path: Path
) -> None:
    mill = Mill(log, tiny_model, tmp_path / "state", clock=Clock())
    run(mill.trainer())
    for step in mill.steps():
        taken = {(given.partition, given.offset) for given in step.inputs}
        groups = {t.group_id for t, place in placed(log) if place in taken}
        assert len(taken) == 8 and len(groups) == 2, "groups are whole"
    report = mill.audit()
    assert report.ok, report.problems
    assert report.head == GROUPS * SIZE / 8
    assert report.trajectories.outcomes == {"trained": GROUPS * SIZE}
    assert report.feedback.records == sum(report.feedback.outcomes.values()) == GROUPS * SIZE
    assert not report.feedback.in_flight and not report.trajectories.in_flight
    mill.close()


def placed(log: MemoryLog) -> Iterator[tuple[events.Trajectory, tuple[int, int]]]:
    for partition in range(PARTITIONS):
        for record, made in _of(log, topics.TRAJECTORIES.name, partition):
            assert isinstance(made, events.Trajectory)
            yield made, (record.partition, record.offset)
