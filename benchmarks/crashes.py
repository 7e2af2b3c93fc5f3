"""Random kills of the trainer under a feed that goes on, and what became of every trajectory.

    python -m benchmarks.crashes [--kills 50] [--seed 0] [--json]

An embedded broker, the trainer's own process with a tiny model, one life after the other. Each is
killed with -9: every other one at a random moment, the rest where it comes to one of the numbered
points of :mod:`tests.trainer.nursery` for a random time. At the end everything is decided, the log
is recounted for the base chain of every version that was ever published (``tailrace audit``), and
one more trainer takes every step again from nothing but the log and the model folder.

Last line: ``kills``; ``lost``: records without exactly one outcome; ``trained_twice``;
``reseeded``: steps that did not go on from their optimizer's own state. Exit code 1 when anything
was lost, trained twice or found wrong, or the last digest is not reached again.
"""

from __future__ import annotations

import argparse
from collections import Counter
import json
from pathlib import Path
import random
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from tailrace import audit, topics
from tailrace.events import Command, Step
from tailrace.log.base import Log
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import named
from tailrace.wire import Wire
from tests import tinymodel
from tests.conftest import TestBroker
from tests.trainer import traffic
from tests.trainer.nursery import POINTS, Life, Nursery, settings_file

LIFE_S = 3.0
"""A random moment is at most so long after the start."""
POINT_S = 30.0
"""A life that does not come to its point by then is killed all the same."""
END_S = 240.0
PARTITIONS = 4


class Feed:
    """Trajectories as they come: most are new, some are repeats, revisions, or no use."""

    def __init__(self, log: Log, seed: int) -> None:
        self._chance = random.Random(seed)
        self._producer = log.producer()
        self._writer = Writer(self._producer, Wire(), source="rewards")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.failed: Exception | None = None
        self.records = 0
        self._thread.start()

    def stop(self) -> None:
        """Everything that was sent is on the log. Raises what went wrong."""
        self._stop.set()
        self._thread.join()
        self._producer.flush()
        self._producer.close()
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._chance.uniform(0.05, 0.4)):
                for _ in range(self._chance.randint(1, 8)):
                    self._one()
        except Exception as error:
            self.failed = error

    def _one(self) -> None:
        number, kind = self.records, self._chance.random()
        self.records += 1
        earlier = self._chance.randrange(number + 1)
        if kind < 0.08:
            event = traffic.trajectory(earlier)
        elif kind < 0.16:
            event = traffic.trajectory(number, supersedes=traffic.trajectory(earlier).trajectory_id)
        elif kind < 0.2:
            event = traffic.trajectory(number, reward=None)
        elif kind < 0.22:
            self._producer.append(topics.TRAJECTORIES.name, b"rubbish", key=b"default:s")
            return
        else:
            event = traffic.trajectory(number)
        self._writer.write(topics.TRAJECTORIES, event)


class Crashes:
    """Trainers on one broker, killed one after the other."""

    def __init__(self, bootstrap: str, folder: Path, seed: int) -> None:
        self._log = KafkaLog(bootstrap)
        self._chance = random.Random(seed)
        self._seed = seed
        model = tinymodel.write(folder / "model")

        def settings(name: str, **trainer: Any) -> Path:
            path, own_dir = folder / f"{name}.toml", folder / name
            places = {"kafka": bootstrap, "model_dir": model, "state_dir": own_dir}
            return settings_file(path, prefix="", **places, **trainer)

        self._file = settings("state", checkpoint_versions=4)
        self._anew = settings("anew", replay_steps=1_000_000)
        traffic.make_topics(self._log, partitions=PARTITIONS)
        self._nursery = Nursery(model, folder / "lives")

    def close(self) -> None:
        """Let go of the broker and of the processes."""
        self._nursery.close()
        self._log.close()

    def run(self, kills: int) -> dict[str, Any]:
        """So many, then the account."""
        feed = Feed(self._log, self._seed)
        where: Counter[str] = Counter()
        for number in range(kills):
            where[self._kill(at_random=number % 2 == 0)] += 1
            print(f"kill {number + 1} of {kills}", file=sys.stderr)
        feed.stop()
        last = self._nursery.start(self._file)
        until = time.monotonic() + END_S
        while (found := self._audit()).report().trajectories.in_flight:
            self._drain()
            if time.monotonic() > until or self._ended(last, 1.0) is not None:
                break
        last.kill(signal.SIGTERM)
        code = self._nursery.ended(last)
        found = self._audit()
        return {"where": dict(where), "last_exit": code} | self._account(found, feed.records)

    def _kill(self, at_random: bool) -> str:
        """One life. Returns where it ended."""
        point = "" if at_random else self._chance.choice(POINTS)
        life = self._nursery.start(self._file, point, self._chance.randint(1, 3))
        bound_s = self._chance.uniform(0.0, LIFE_S) if at_random else POINT_S
        code = self._ended(life, bound_s)
        if code is None:
            point = "a random moment"
            life.kill()
            code = self._nursery.ended(life)
        if code != -signal.SIGKILL:
            raise RuntimeError(f"a trainer ended with {code}: {life.said()[-3000:]}")
        return point

    def _ended(self, life: Life, timeout_s: float) -> int | None:
        try:
            return self._nursery.ended(life, timeout_s)
        except TimeoutError:
            return None

    def _drain(self) -> None:
        producer = self._log.producer()
        order = Command(model=traffic.MODEL, event_time_ms=traffic.TIME_MS, command="drain")
        Writer(producer, Wire()).write(topics.CONTROL, order)
        producer.flush()
        producer.close()

    def _audit(self) -> audit.Audit:
        return audit.read(self._log, Wire(), model=traffic.MODEL)

    def _read(self, topic: topics.Topic) -> list[Any]:
        decoder = Decoder(self._log, Wire())
        records = read_all(self._log, named(topic, ""), committed_only=True)
        return [decoder.decode(record) for record in records]

    def _account(self, found: audit.Audit, records: int) -> dict[str, Any]:
        """Of the chain of every version there is."""
        versions = [update.version for update in self._read(topics.MODEL_UPDATES)]
        steps: list[Step] = self._read(topics.STEPS)
        lost, twice, other = set(), set(), Counter[str]()
        for version in versions:
            for problem in found.report(version).problems:
                where = problem.where
                place = (where.partition, where.offset) if where else (-1, version)
                if problem.kind == "trained_twice":
                    twice.add(place)
                elif problem.kind in ("no_receipt", "conflicting_receipts"):
                    lost.add(place)
                elif problem.kind != "no_chunks" or version == versions[-1]:
                    # Of versions below the third-newest keyframe the publisher deletes the bytes.
                    other[problem.kind] += 1
        report = found.report()
        for line in audit.in_words(report):
            print(line, file=sys.stderr)
        trained = Counter(i.trajectory_id for step in steps for i in step.inputs)
        return {
            "records": records,
            "versions": len(versions),
            "steps": len(steps),
            "lost": len(lost) + report.trajectories.in_flight,
            "trained_twice": max(len(twice), sum(count > 1 for count in trained.values())),
            "reseeded": sum(step.reseeded for step in steps),
            "other_problems": dict(other),
            "reached_again": self._reached_again(len(steps)),
        }

    def _reached_again(self, steps: int) -> bool:
        """Whether every step, taken again from the model folder, ends on the published digest."""
        life = self._nursery.start(self._anew)
        until, code = time.monotonic() + END_S, None
        while "recovered version=" not in life.said() and code is None:
            code = self._ended(life, 0.5)
            if time.monotonic() > until:
                life.kill()
        if code is None:
            life.kill(signal.SIGTERM)
            code = self._nursery.ended(life)
        return code == 0 and f"replayed={steps} reseeded=None" in life.said()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crashes", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the result is one JSON object anyway")
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailrace-crashes-") as name:
        broker = TestBroker(Path(name) / "kafka")
        try:
            crashes = Crashes(broker.bootstrap, Path(name), options.seed)
            try:
                found = crashes.run(options.kills)
            finally:
                crashes.close()
        finally:
            broker.stop()
    found["seconds"] = round(time.monotonic() - began_s, 1)
    print(json.dumps(found), file=sys.stderr)
    counts = {name: found[name] for name in ("lost", "trained_twice", "reseeded")}
    print(json.dumps({"kills": options.kills} | counts))
    good = found["reached_again"] and not found["last_exit"] and not found["other_problems"]
    return 0 if good and not counts["lost"] and not counts["trained_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
