"""The trajectories of a stretch, read by one process or by several, a share of the partitions each.

All revisions of an answer lie in one partition, so shares know nothing of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
import os
from pathlib import Path
import time

import msgspec

from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Trajectory
from tailrace.export import writing
from tailrace.export.choice import Choice
from tailrace.export.quick import Quick
from tailrace.export.shards import Shards
from tailrace.export.writing import Written
from tailrace.log.base import Log
from tailrace.reading import moment_ms
from tailrace.settings import Common
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire

WORTH = 40_000
"""Records for which another process is worth its start."""


class Source:
    """Trajectories of ``[start, end)`` of some partitions; they may be asked for again."""

    def __init__(
        self, log: Log, common: Common, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        self._log, self.common, self.prefix = log, common, common.prefix
        self.starts, self.ends = dict(starts), dict(ends)
        self._name = named(topics.TRAJECTORIES, common.prefix)
        self._decoder = Decoder(log, Wire(common.registry), prefix=common.prefix)
        self._quick = Quick(Trajectory)

    @classmethod
    def of(cls, log: Log, common: Common, since: str | None, until: str | None) -> Source:
        """By append time. Raises ValueError for what is no time, LogError."""
        name, now_ms = named(topics.TRAJECTORIES, common.prefix), time.time_ns() // 1_000_000
        starts, ends = (
            default(name) if said is None else log.offsets_at(name, moment_ms(said, now_ms))
            for said, default in ((since, log.starts), (until, log.ends))
        )
        return cls(log, common, starts, ends)

    def jobs(self) -> int:
        """How many processes are worth it here."""
        records = sum(max(0, end - self.starts[p]) for p, end in self.ends.items())
        cores = len(os.sched_getaffinity(0))
        return max(1, min(cores, len(self.ends), records // WORTH))

    def __call__(self, left_out: Counter[str]) -> Iterator[Trajectory]:
        """What cannot be read is counted as left out."""
        for record in read_all(self._log, self._name, starts=self.starts, ends=self.ends):
            event = self._quick(record.value)
            try:
                event = event or self._decoder.decode(record)
            except InvalidRecord:
                left_out["unreadable"] += 1
                continue
            assert isinstance(event, Trajectory)
            yield event


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written of them, a row each."""

    choice: Choice
    folder: str
    form: str
    good_above: float
    shard_rows: int


def work(source: Source, job: Job, jobs: int) -> Written:
    """Write all rows, with so many processes."""
    if jobs == 1:
        return _rows(source, job, 0)
    shares = [
        {p: end if p % jobs == number else 0 for p, end in source.ends.items()}
        for number in range(jobs)
    ]
    context = multiprocessing.get_context("spawn")
    whole = Written()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for each in pool.map(
            _share,
            [source.common] * jobs,
            [source.starts] * jobs,
            shares,
            [job] * jobs,
            range(jobs),
        ):
            whole = Written(
                whole.read + each.read, whole.rows + each.rows, whole.left_out + each.left_out
            )
    return whole


def _share(
    common: Common, starts: dict[int, int], ends: dict[int, int], job: Job, number: int
) -> Written:
    """What one process does."""
    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(common.kafka)
    try:
        return _rows(Source(log, common, starts, ends), job, number)
    finally:
        log.close()


def _rows(source: Source, job: Job, number: int) -> Written:
    shards = Shards(Path(job.folder), number)
    return writing.rows(source, job.choice, shards, job.form, job.good_above, job.shard_rows)
