"""The account itself finds what it is there to find."""

from __future__ import annotations

from pathlib import Path
import time

from msgspec.structs import replace

from services.rewards import offline, spec
from services.rewards.emission import Send
from tailrace import events, topics
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer, dead_letter, publish_schemas, read_all
from tailrace.wire import Wire
from tests.faults import check
from tests.faults.machine import SPEC
from tests.faults.traffic import Traffic


def rules(folder: Path) -> spec.Spec:
    (folder / "spec.toml").write_text(SPEC)
    return spec.load(folder / "spec.toml")


def story(seed: int) -> tuple[Log, Writer]:
    """Traffic with ticks in between, and ticks until all is decided."""
    now = [time.time_ns() // 1_000_000]  # the turns are of now
    log = MemoryLog(clock_ms=lambda: now[0])
    log.create(topics.TOPICS, session_partitions=2)
    publish_schemas(log)
    writer = Writer(log.producer(), Wire(), source="test")
    traffic = Traffic(writer, seed)
    for step in range(40):
        if step < 30:
            traffic.some(4)
        for partition in (0, 1):
            ends = {kind: log.ends(kind)[partition] for kind in ("prompts", "outputs", "feedback")}
            tick = events.Tick(partition=partition, event_time_ms=now[0] - 1, ends=ends)
            writer.write(topics.TICKS, tick, partition=partition)
        now[0] += 100 if step < 30 else 300
    return log, writer


def say(log: Log, writer: Writer, folder: Path) -> None:
    """What a worker would send."""
    logs = check.inputs(log, "")
    for partition, kinds in logs.items():
        for out in offline.run(rules(folder), partition, 2, kinds):
            if isinstance(out, Send):
                topic = topics.TRAJECTORIES
                if isinstance(out.record, events.Receipt):
                    topic = topics.RECEIPTS
                writer.write(topic, out.record, partition=out.partition)
            else:
                value, headers = dead_letter(out.record, out.reason, out.detail)
                writer.producer.append("dead-letters", value, headers=headers)


def test_what_is_right_is_good_and_what_is_not_is_named(tmp_path: Path) -> None:
    outcomes: set[str] = set()
    for seed in range(5):
        log, writer = story(seed)
        silent = check.compare(log, "", rules(tmp_path))
        assert silent.lost == silent.feedback > 30 and not silent.good
        say(log, writer, tmp_path)
        account = check.compare(log, "", rules(tmp_path))
        assert account.good and account.trajectories > 10, account
        wire = Wire()
        receipts = [wire.decode(events.Receipt, r.value) for r in read_all(log, "receipts")]
        outcomes |= {receipt.outcome for receipt in receipts}
        say(log, writer, tmp_path)  # the same again is no fault
        assert check.compare(log, "", rules(tmp_path)).good
        other = replace(receipts[0], outcome="quarantined")
        writer.write(topics.RECEIPTS, other, partition=0)
        spoiled = check.compare(log, "", rules(tmp_path))
        assert (spoiled.lost, spoiled.conflicts, len(spoiled.differences)) == (0, 1, 1)
    assert outcomes >= {"joined", "corrected", "orphan", "duplicate", "conflict", "invalid"}
    assert outcomes >= {"foreign", "applied", "late", "withdrawn", "replaced"}
