"""Records a second of a replay on one core, and interactions a second of an export to Parquet.

    python -m benchmarks.replay [--interactions 100000] [--json]

The embedded broker has the first core, the replayer the last; the export has all cores, as its
command does, the broker's among them. An interaction is a prompt of 200 tokens, an answer of 100
with logprobs, one piece of feedback and its trajectory, which has the texts, tokens and logprobs of
both; each partition has a tick for every thousand. The replay is at full speed, into a new prefix,
and counted until the brokers acknowledged the last record; the export is the format ``parquet``
with everything in it, counted until the folder has its name. The best of two runs each. Ends with 1
when either lacks a record.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks.rewards import PARTITIONS, Feeder
from benchmarks.servers import Servers
from tailrace import events, topics
from tailrace.export.choice import Choice
from tailrace.export.command import exported
from tailrace.export.source import Source
from tailrace.log.kafka import KafkaLog
from tailrace.replaying.plan import begin, copy_schemas
from tailrace.replaying.replayer import Replayer
from tailrace.replaying.stretch import planned
from tailrace.settings import Common
from tailrace.stream import Decoder, Writer, publish_schemas, read_all
from tailrace.wire import Wire

CHUNK = 1_000


def fill(log: KafkaLog, interactions: int) -> None:
    """What users and rewards would have left."""
    log.create(topics.TOPICS, session_partitions=PARTITIONS)
    publish_schemas(log)
    feeder = Feeder(log)
    writer = Writer(feeder.producer, Wire(), source="benchmark")
    while feeder.fed < interactions:
        feeder.feed(min(CHUNK, interactions - feeder.fed))
        feeder.producer.flush()
        ends = {kind: log.ends(kind) for kind in ("prompts", "outputs", "feedback")}
        for partition in range(PARTITIONS):
            tick = events.Tick(
                partition=partition,
                event_time_ms=time.time_ns() // 1_000_000,
                ends={kind: offsets[partition] for kind, offsets in ends.items()},
            )
            writer.write(topics.TICKS, tick, partition=partition)
    decoder, answers = Decoder(log, Wire()), {}
    for record in read_all(log, "outputs"):
        output = decoder.decode(record)
        assert isinstance(output, events.Output)
        answers[output.interaction_id] = output
    for record in read_all(log, "prompts"):
        prompt = decoder.decode(record)
        assert isinstance(prompt, events.Prompt)
        writer.write(topics.TRAJECTORIES, trajectory(prompt, answers[prompt.interaction_id]))
    feeder.producer.flush()
    feeder.producer.close()


def trajectory(prompt: events.Prompt, output: events.Output) -> events.Trajectory:
    """As rewards would make it."""
    assert prompt.content is not None and output.content is not None
    return events.Trajectory(
        trajectory_id=f"{prompt.interaction_id}-0",
        interaction_id=prompt.interaction_id,
        event_time_ms=prompt.event_time_ms,
        reward=1.0,
        components=[events.Component(name="thumbs", value=1.0, weight=1.0)],
        reward_spec="benchmark",
        feedback_ids=[f"{prompt.interaction_id}!f"],
        tenant="default",
        learn=True,
        model="benchmark",
        finish_reason="stop",
        weight_versions=output.weight_versions,
        prompt_log_time_ms=prompt.event_time_ms,
        output_log_time_ms=output.event_time_ms,
        closed_log_time_ms=output.event_time_ms,
        content=events.TrajectoryContent(
            messages=prompt.content.messages,
            prompt_token_ids=prompt.content.prompt_token_ids,
            message=output.content.message,
            token_ids=output.content.token_ids,
            logprobs=output.content.logprobs,
        ),
    )


def replay(log: KafkaLog, prefix: str) -> tuple[int, float]:
    """All of it again; records and seconds."""
    plan = planned(log, "", now_ms=time.time_ns() // 1_000_000)
    begin(log, prefix, plan)
    copy_schemas(log, "", prefix)
    began = time.monotonic()
    done = Replayer(log, plan, prefix).run()
    return sum(done.records.values()), time.monotonic() - began


def export(bootstrap: str, folder: Path) -> tuple[int, float]:
    """All trajectories to Parquet; rows and seconds."""
    began = time.monotonic()
    source = Source.of(KafkaLog(bootstrap), Common(kafka=bootstrap), None, None)
    found = exported(source, Choice(), folder, "parquet", jobs=source.jobs())
    return found["rows"], time.monotonic() - began


def measured(servers: Servers, interactions: int, say: Callable[[str], None]) -> dict[str, Any]:
    """A broker, what it holds, and both figures."""
    cores = sorted(os.sched_getaffinity(0))
    bootstrap = servers.kafka(say, cores=cores[:1])
    fill(KafkaLog(bootstrap), interactions)
    say(f"{interactions} interactions are on the log")
    log = KafkaLog(bootstrap)
    wanted = sum(sum(log.ends(t).values()) for t in ("prompts", "outputs", "feedback", "ticks"))
    replays, exports, missing = [], [], 0
    for number in range(2):
        os.sched_setaffinity(0, cores[-1:])
        records, seconds = replay(KafkaLog(bootstrap), f"replay-{number}.")
        os.sched_setaffinity(0, cores)
        missing += wanted - records
        replays.append(records / seconds)
        say(f"replay: {records} records in {seconds:.2f} s")
        rows, seconds = export(bootstrap, servers.folder / f"set-{number}")
        missing += interactions - rows
        exports.append(rows / seconds)
        say(f"export: {rows} interactions in {seconds:.2f} s")
    return {
        "replay_per_s": round(max(replays)),
        "export_per_s": round(max(exports)),
        "interactions": interactions,
        "missing": missing,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="say nothing but the result")
    options = parser.parse_args()
    say = (lambda line: None) if options.json else print
    with Servers() as servers:
        result = measured(servers, options.interactions, say)
    print(json.dumps(result))
    return 1 if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
