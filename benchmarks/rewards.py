"""Joined interactions a second of one rewards worker on one core, and its memory over time.

    python -m benchmarks.rewards [--interactions 100000] [--json]

The embedded broker and a feeder share the first core, one ``python -m services.rewards`` has the
last. An interaction is a prompt of 200 tokens, an answer of 100 with logprobs and one piece of
feedback; a trajectory and a receipt come out. The feeder keeps at most 20,000 interactions ahead,
the spec waits 1 s and forgets after 15 s. What was committed and what was read is deleted from the
log on the way, so the run needs little disk at any length. The rate is counted from the first
prompt, written when the worker has its partitions, to the last receipt, so the spec's wait is in
it; ``rss_mb`` is the worker's at each tenth. Ends with 1 when a piece of feedback has no receipt,
or two.
"""

from __future__ import annotations

import argparse
from collections import Counter, deque
from collections.abc import Callable
import json
import os
import subprocess
import sys
import time
from typing import Any

import psutil

from benchmarks.servers import SMALL_SEGMENTS, Servers
from tailrace import events, ids, packing, topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

GROUP = "tailrace-rewards"
PARTITIONS = 4
TURNS = 4
AHEAD = 20_000
CHUNK = 250
PURGE_S = 10.0
STILL_S = 120.0
"""So long without a receipt, and the rest is called missing."""
SPEC = """
wait_s = 1
orphan_s = 5
horizon_s = 15
[metrics.thumbs]
true = 1.0
false = -1.0
"""


class Feeder:
    """Writes interactions, one after the other; ``TURNS`` are a session."""

    def __init__(self, log: KafkaLog) -> None:
        self.fed = 0
        self.producer = log.producer()
        self._writer = Writer(self.producer, Wire(), source="benchmark")
        self._turns: deque[str] = deque(maxlen=TURNS)
        words = "the water runs down the channel and back into the river below the mill "
        self._asked = json.dumps([{"role": "user", "content": (words * 12)[:800]}])
        self._answer = json.dumps({"role": "assistant", "content": (words * 6)[:400]})
        self._prompt_ids = packing.pack_ids(range(1000, 1200))
        self._answer_ids = packing.pack_ids(range(2000, 2100))
        self._logprobs = packing.pack_logprobs([-0.5] * 100)

    def feed(self, number: int) -> None:
        """So many more. All are queued when this returns."""
        for at in range(self.fed, self.fed + number):
            self._one(f"default:b{at // TURNS}", at % 3 != 0)
        self.fed += number

    def _one(self, session: str, up: bool) -> None:
        now_ms = time.time_ns() // 1_000_000
        # Four turns of a session within a millisecond, where the id has 20 bits of chance: of
        # 100,000 interactions two would be drawn alike in every tenth run.
        while (interaction := ids.new_interaction(session, now_ms)) in self._turns:
            pass
        self._turns.append(interaction)
        prompt = events.Prompt(
            interaction_id=interaction,
            session_id=session,
            event_time_ms=now_ms,
            tenant="default",
            model="benchmark",
            learn=True,
            content=events.PromptContent(messages=self._asked, prompt_token_ids=self._prompt_ids),
        )
        output = events.Output(
            interaction_id=interaction,
            event_time_ms=now_ms,
            finish_reason="stop",
            weight_versions=[events.VersionSpan(version=1, start=0, end=100)],
            content=events.OutputContent(
                message=self._answer, token_ids=self._answer_ids, logprobs=self._logprobs
            ),
        )
        feedback = events.Feedback(
            feedback_id=f"{interaction}!f",
            interaction_id=interaction,
            event_time_ms=now_ms,
            tenant="default",
            kind="boolean",
            metric="thumbs",
            boolean=up,
        )
        self._writer.write(topics.PROMPTS, prompt)
        self._writer.write(topics.OUTPUTS, output)
        self._writer.write(topics.FEEDBACK, feedback)


class Receipts:
    """Reads receipts on; knows which feedback has one, and of what outcome."""

    def __init__(self, log: KafkaLog) -> None:
        self.places = [bytearray() for _ in range(PARTITIONS)]
        """1 at the offset of each feedback record that has a receipt."""
        self.receipted = 0
        self.conflicts = 0
        self.outcomes: Counter[str] = Counter()
        self._wire = Wire()
        self._consumer = log.consumer()
        self._consumer.assign({("receipts", p): 0 for p in range(PARTITIONS)})

    def read(self, timeout_s: float) -> None:
        for record in self._consumer.poll(timeout_s, max_records=2000):
            receipt = self._wire.decode(events.Receipt, record.value)
            place, offset = self.places[receipt.source.partition], receipt.source.offset
            place.extend(bytes(max(0, offset + 1 - len(place))))
            if place[offset]:
                # A worker that nobody kills says everything once.
                self.conflicts += 1
                continue
            place[offset] = 1
            self.receipted += 1
            self.outcomes[receipt.outcome] += 1

    def positions(self) -> dict[int, int]:
        return {p: self._consumer.position("receipts", p) for p in range(PARTITIONS)}

    def close(self) -> None:
        self._consumer.close()


class Run:
    """The figures of one run."""

    def __init__(self, servers: Servers, interactions: int, say: Callable[[str], None]) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self._core = cores[-1]
        os.sched_setaffinity(0, cores[:1])
        self._servers, self._interactions, self._say = servers, interactions, say

    def run(self) -> dict[str, Any]:
        bootstrap = self._servers.kafka(self._say, properties=SMALL_SEGMENTS)
        log = KafkaLog(bootstrap)
        log.create(topics.TOPICS, session_partitions=PARTITIONS)
        publish_schemas(log)
        child = self._worker(bootstrap)
        worker = psutil.Process(child.pid)
        feeder, receipts = Feeder(log), Receipts(log)
        rss_mb: list[float] = []
        known = 0
        self._await_worker(child)
        began, cpu_s = time.monotonic(), _cpu_s(worker)
        purged_at = moved_at = began
        while receipts.receipted < self._interactions:
            left = self._interactions - feeder.fed
            room = min(left, AHEAD - (feeder.fed - receipts.receipted), CHUNK)
            feeder.feed(max(0, room))
            receipts.read(0.0 if room >= CHUNK else 0.05)
            now = time.monotonic()
            if child.poll() is not None:
                raise RuntimeError(f"the worker ended: {self._servers.tail('worker')}")
            if receipts.receipted > known:
                known, moved_at = receipts.receipted, now
            while receipts.receipted * 10 >= self._interactions * (len(rss_mb) + 1):
                rss_mb.append(round(worker.memory_info().rss / 2**20, 1))
                self._say(f"{receipts.receipted} receipts, {rss_mb[-1]:.0f} MB")
            if now - moved_at > STILL_S:
                break
            if now - purged_at > PURGE_S:
                purged_at = now
                self._purge(log, receipts)
        feeder.producer.flush()
        ends = log.ends("feedback")
        trajectories = sum(log.ends("trajectories").values())
        result = {
            "interactions": self._interactions,
            "interactions_per_s": round(known / (moved_at - began), 1) if known else 0.0,
            "worker_cpu_us": round((_cpu_s(worker) - cpu_s) / max(1, known) * 1e6),
            "rss_mb": rss_mb,
            "missing": sum(ends.values()) - receipts.receipted,
            "repeated": receipts.conflicts,
            "outcomes": dict(receipts.outcomes),
            "trajectories": trajectories,
        }
        for closable in (receipts, feeder.producer, log):
            closable.close()
        return result

    def _worker(self, bootstrap: str) -> subprocess.Popen[bytes]:
        folder = self._servers.folder
        settings = folder / "settings.toml"
        (folder / "spec.toml").write_text(SPEC)
        settings.write_text(
            f'kafka = "{bootstrap}"\nstate_dir = "{folder}"\n[rewards]\n'
            f'spec = "{folder}/spec.toml"\ninstance = "one"\n'
        )
        command = [sys.executable, "-m", "services.rewards", "--settings", str(settings)]
        return self._servers.start("worker", command, cores=[self._core])

    def _await_worker(self, child: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + STILL_S
        while "assigned partitions" not in (said := self._servers.tail("worker")):
            if child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the worker does not start: {said}")
            time.sleep(0.1)

    def _purge(self, log: KafkaLog, receipts: Receipts) -> None:
        """Give the log's room back: inputs that are committed, outputs but for what is unread."""
        asking = log.consumer(group=GROUP)
        for kind in ("prompts", "outputs", "feedback", "ticks"):
            log.delete_before(kind, asking.committed(kind, range(PARTITIONS)))
        asking.close()
        log.delete_before("receipts", receipts.positions())
        log.delete_before("trajectories", log.ends("trajectories"))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewards", description=__doc__)
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="say nothing but the result")
    options = parser.parse_args()
    say = (lambda line: None) if options.json else print
    with Servers() as servers:
        result = Run(servers, options.interactions, say).run()
    print(json.dumps(result))
    return 1 if result["missing"] or result["repeated"] else 0


if __name__ == "__main__":
    sys.exit(main())
