"""``tailrace export``: trajectories of a stretch as a data set in a folder.

In: the log, what was asked for. Out: files and a card that says where they are from; exact counts.
Called by :mod:`tailrace.cli` and :mod:`tailrace.commands`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from tailrace.errors import SettingsError

if TYPE_CHECKING:
    from tailrace.events import Trajectory
    from tailrace.export.choice import Choice
    from tailrace.export.shards import Shards
    from tailrace.log.base import Log
    from tailrace.settings import Common

FORMATS = ("parquet", "jsonl", "sft", "dpo", "kto", "reward")
SHARD_ROWS = 50_000


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``export``. ``command`` adds one with the options that say where the log is."""
    text = "write trajectories as Parquet, JSON lines, or what TRL's trainers load"
    export = command(commands, "export", text)
    export.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    export.add_argument("--format", choices=FORMATS, default="parquet", help="(parquet)")
    export.add_argument("--since", metavar="T", help="from here: 1h, a time (the oldest record)")
    export.add_argument("--until", metavar="T", help="up to here (now)")
    export.add_argument("--min-reward", type=float, metavar="R", help="rewards from R on alone")
    export.add_argument("--max-reward", type=float, metavar="R", help="rewards up to R alone")
    export.add_argument("--versions", metavar="A..B", help="sampled by these versions alone")
    export.add_argument("--tenant", action="append", metavar="NAME", help="again for more")
    export.add_argument(
        "--without-consent",
        action="store_true",
        help="also what may not be learnt from (its texts are not on the topic)",
    )
    export.add_argument(
        "--good-above", type=float, default=0.0, metavar="R", help="kto: the label's bound (0)"
    )
    export.add_argument(
        "--margin",
        type=float,
        default=0.0,
        metavar="R",
        help="dpo, reward: rewards of a pair differ by as much (0: by anything)",
    )
    export.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Write a data set; 0. Raises ValueError for what cannot be, LogError."""
    import json

    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise SettingsError("export needs pyarrow: pip install 'tailrace[export]'") from None
    from tailrace.export.choice import Choice, versions

    choice = Choice(
        min_reward=arguments.min_reward,
        max_reward=arguments.max_reward,
        versions=None if arguments.versions is None else versions(arguments.versions),
        tenants=tuple(arguments.tenant or ()),
        without_consent=arguments.without_consent,
    )
    source = Source(log, common, arguments.since, arguments.until)
    found = exported(
        source,
        choice,
        arguments.to,
        arguments.format,
        good_above=arguments.good_above,
        margin=arguments.margin,
    )
    if arguments.json:
        print(json.dumps(found))
        return 0
    for reason, count in found["left_out"].items():
        print(f"left out, {reason}: {count}", file=sys.stderr)
    print(f"{found['rows']} rows of {found['read']} trajectories in {arguments.to}")
    return 0


class Source:
    """The trajectories of a stretch; they may be asked for more than once."""

    def __init__(self, log: Log, common: Common, since: str | None, until: str | None) -> None:
        """Raises ValueError for what is no time, LogError."""
        import time

        from tailrace import topics
        from tailrace.reading import moment_ms
        from tailrace.stream import Decoder
        from tailrace.topics import named
        from tailrace.wire import Wire

        now_ms = time.time_ns() // 1_000_000
        self._log, self.prefix = log, common.prefix
        self._name = named(topics.TRAJECTORIES, common.prefix)
        self._starts, self._ends = (
            default(self._name)
            if said is None
            else log.offsets_at(self._name, moment_ms(said, now_ms))
            for said, default in ((since, log.starts), (until, log.ends))
        )
        self._decoder = Decoder(log, Wire(common.registry), prefix=common.prefix)

    def __call__(self, left_out: Counter[str]) -> Iterator[Trajectory]:
        from tailrace.errors import InvalidRecord
        from tailrace.events import Trajectory
        from tailrace.stream import read_all

        for record in read_all(self._log, self._name, starts=self._starts, ends=self._ends):
            try:
                event = self._decoder.decode(record)
            except InvalidRecord:
                left_out["unreadable"] += 1
                continue
            assert isinstance(event, Trajectory)
            yield event


def exported(
    source: Source,
    choice: Choice,
    folder: Path,
    form: str,
    *,
    good_above: float = 0.0,
    margin: float = 0.0,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Write a data set. Gives ``read``, ``rows`` and ``left_out`` by reason."""
    from tailrace.export import writing
    from tailrace.export.shards import Shards

    with Shards(folder) as shards:
        if form in ("dpo", "reward"):
            read, left_out = writing.pairs(source, choice, shards, form, margin, shard_rows)
        else:
            read, left_out = writing.rows(source, choice, shards, form, good_above, shard_rows)
        rows = shards.finish(lambda rows: _card(form, rows, read, source.prefix))
        left_out += shards.dropped
    return {
        "format": form,
        "to": str(folder),
        "read": read,
        "rows": rows,
        "left_out": {reason: count for reason, count in sorted(left_out.items()) if count},
    }


def _card(form: str, rows: int, read: int, prefix: str) -> str:
    suffix = "jsonl" if form == "jsonl" else "parquet"
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: data/*.{suffix}\n---\n\n"
        f"{rows} rows ({form}), made by tailrace export of {read} trajectories"
        f"{f' under {prefix}' if prefix else ''}.\n"
    )


__all__ = ["FORMATS", "Shards", "Source", "add_parser", "exported", "run"]
