"""``python -m services.rewards.trial SPEC --since 1h``: logged interactions under another spec.

In: the inputs and ticks of the interactions that began in the stretch, and the trajectories and
receipts that they came to. Out, on stdout: how their final rewards would differ, with intervals.
Nothing is written to the log, no offset is committed.

An answer counts where it has a trajectory both ways: one that is still open under either spec is
told apart. The whole stretch is held in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
import sys
import time

import msgspec

from services.rewards import offline, spec
from services.rewards.comparison import Account, Trial, compared, in_words
from services.rewards.emission import Send
from services.rewards.join import KINDS
from services.rewards.offline import Read
from services.rewards.spec import Spec
from tailrace import topics
from tailrace.errors import InvalidRecord, LogError, SettingsError
from tailrace.log.base import Log
from tailrace.reading import moment_ms
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire


def tried(
    log: Log,
    rules: Spec,
    since_ms: int,
    until_ms: int,
    *,
    prefix: str = "",
    wire: Wire | None = None,
) -> Trial:
    """Run the interactions of a stretch under another spec. Raises LogError."""
    decoder = Decoder(log, wire or Wire(), prefix=prefix)
    was, would = Account(since_ms, until_ms), Account(since_ms, until_ms)
    ends = {kind: log.ends(prefix + kind) for kind in KINDS}
    for topic in (topics.TRAJECTORIES, topics.RECEIPTS):
        name = named(topic, prefix)
        for record in read_all(
            log, name, starts=log.offsets_at(name, since_ms), committed_only=True
        ):
            try:
                was.take(decoder.decode(record))
            except InvalidRecord:
                continue  # the audit says so
    starts = {kind: log.offsets_at(prefix + kind, since_ms) for kind in KINDS}
    partitions = log.partitions(prefix + topics.PROMPTS.name)
    for partition in range(partitions):
        logs = {
            kind: _reads(
                log,
                decoder,
                prefix + kind,
                partition,
                starts[kind][partition],
                ends[kind][partition],
            )
            for kind in KINDS
        }
        for out in offline.run(rules, partition, partitions, logs):
            if isinstance(out, Send):
                would.take(out.record)
    return compared(rules, was, would)


def _reads(
    log: Log, decoder: Decoder, topic: str, partition: int, start: int, end: int
) -> Iterator[Read]:
    for record in read_all(log, topic, starts={partition: start}, ends={partition: end}):
        try:
            yield record, decoder.decode(record)
        except InvalidRecord as error:
            yield record, error


def main(arguments: Sequence[str] | None = None, log: Log | None = None) -> int:
    """Exit status: 0; 2 for a wrong spec or time; 1 where the log cannot be read."""
    parser = argparse.ArgumentParser(prog="services.rewards.trial", description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--since", default="1h", metavar="T", help="interactions from here: 1h ago")
    parser.add_argument("--until", metavar="T", help="up to here (now)")
    parser.add_argument("--kafka", default="127.0.0.1:9092", metavar="HOST:PORT")
    parser.add_argument("--prefix", default="", metavar="P")
    parser.add_argument("--registry", metavar="URL")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    now_ms = time.time_ns() // 1_000_000
    try:
        rules = spec.load(given.spec)
        since_ms = moment_ms(given.since, now_ms)
        until_ms = moment_ms(given.until, now_ms) if given.until else now_ms
    except (SettingsError, ValueError) as error:
        print(f"trial: {error}", file=sys.stderr)
        return 2
    own = log is None
    try:
        if log is None:
            from tailrace.log.kafka import KafkaLog

            log = KafkaLog(given.kafka)
        wire = Wire(given.registry)
        trial = tried(log, rules, since_ms, until_ms, prefix=given.prefix, wire=wire)
    except LogError as error:
        print(f"trial: {error}", file=sys.stderr)
        return 1
    finally:
        if own and log is not None:
            log.close()
    if given.json:
        print(msgspec.json.encode(trial).decode())
    else:
        print("\n".join(in_words(trial)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
