"""``tailrace eval``: how good a version is on the held-out half of private benchmarks.

Without ``--version`` the gateway is asked, so it is what is live; with it the version is built from
the log, verified, and answers here. The exit code is 0 when every task has a score, 1 when one has
none or could not be answered, 2 when a benchmark is wrong. Called by :mod:`tailrace.cli`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

from tailrace.errors import SettingsError

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common
    from tailrace.tasks.benchmark import Benchmark, Split
    from tailrace.tasks.figures import Figures
    from tailrace.tasks.scoring import Scorer
    from tailrace.tasks.sources import Source


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    command: Callable[..., argparse.ArgumentParser],
) -> None:
    """``eval``. ``command`` adds it with the options that say where the log is."""
    found = command(commands, "eval", "measure a version on the held-out half of benchmarks")
    found.add_argument("folder", type=Path, nargs="+", help="with tasks.jsonl and verifier.toml")
    found.add_argument(
        "--version", type=int, metavar="V", help="built from the log and run here (what is served)"
    )
    found.add_argument("--split", choices=("heldout", "train"), default="heldout")
    found.add_argument("--url", help="the gateway (default: of the state directory)")
    found.add_argument("--key", help="API key")
    found.add_argument(
        "--at-once", type=int, default=8, metavar="N", help="requests in flight at the gateway (8)"
    )
    found.add_argument("--json", action="store_true", help="for programs, with every answer")


def run(arguments: argparse.Namespace, common: Common, gateway: Callable[[Common], str]) -> int:
    """Measure, print; the exit code. ``gateway`` finds its URL where none is given. Raises
    TailraceError and ValueError."""
    from tailrace.tasks import benchmark
    from tailrace.tasks.scoring import Scorer

    if arguments.at_once < 1:
        raise SettingsError("--at-once: must be at least 1")
    if arguments.version is not None and (arguments.url or arguments.key):
        raise SettingsError("--version runs the model here: no --url and no --key")
    benchmarks = benchmark.load_all(arguments.folder)
    for one in benchmarks:
        if not one.split(arguments.split):
            raise SettingsError(f"{one.name}: no task is {arguments.split}")
    with contextlib.ExitStack() as stack:
        scorers = [stack.enter_context(Scorer(one)) for one in benchmarks]
        source = stack.enter_context(_source(arguments, common, gateway))
        found = [
            measure(one, arguments.split, source, scorer)
            for one, scorer in zip(benchmarks, scorers, strict=True)
        ]
    _print(found, as_json=arguments.json)
    return 0 if all(one.scored == one.tasks for one in found) else 1


def measure(benchmark: Benchmark, split: Split, source: Source, scorer: Scorer) -> Figures:
    """The figures of one benchmark. Raises ValueError where an answer cannot be had."""
    from tailrace.tasks.figures import Scored, figures

    replies = source.replies(benchmark, benchmark.split(split))
    # One at a time: an answer that a Python verifier fails over costs none but itself its score.
    scores = [scorer.score([reply])[0] for reply, _ in replies]
    items = [
        Scored(
            task=reply.task.id,
            answer=reply.text,
            score=score.number,
            reason=score.reason,
            finish_reason=reply.finish_reason,
            versions=versions,
        )
        for (reply, versions), score in zip(replies, scores, strict=True)
    ]
    return figures(benchmark.name, split, items)


@contextlib.contextmanager
def _source(
    arguments: argparse.Namespace, common: Common, gateway: Callable[[Common], str]
) -> Iterator[Source]:
    from tailrace.tasks.sources import Folder, Served

    if arguments.version is None:
        url = arguments.url or gateway(common)
        with Served(url, model=common.model, key=arguments.key, at_once=arguments.at_once) as found:
            yield found
        return
    from tailrace.commands import REACH_S
    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(common.kafka)
    try:
        log.reach(REACH_S)
        with tempfile.TemporaryDirectory(prefix="tailrace-eval-") as there:
            folder = Path(there) / "model"
            export(log, common, arguments.version, folder)
            source = Folder(folder, arguments.version)
        yield source
    finally:
        log.close()


def export(log: Log, common: Common, version: int, folder: Path) -> None:
    """Write a version, verified, as a model folder. Raises ValueError, UpdateRefused, LogError."""
    from tailrace.errors import UpdateRefused
    from tailrace.orders import whole
    from tailrace.updates import ModelUpdates

    with ModelUpdates(
        log,
        common.model,
        prefix=common.prefix,
        registry=common.registry,
        trust=common.trusted_keys,
        journal_bytes=0,
    ) as updates:
        try:
            update = updates.at(version)
        except UpdateRefused:
            whole(updates.lineage, version, common.model)
            raise
        update.save(folder)


def _print(found: Sequence[Figures], *, as_json: bool) -> None:
    import msgspec

    from tailrace.tasks.figures import in_words

    if as_json:
        print(msgspec.json.encode({"benchmarks": found}).decode())
    else:
        print("\n".join(line for one in found for line in in_words(one)))
