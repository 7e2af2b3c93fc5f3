"""``tailrace export``: trajectories of a stretch as a data set in a folder.

In: the log, what was asked for. Out: files and a card that says where they are from; exact counts.
Called by :mod:`tailrace.cli` and :mod:`tailrace.commands`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from tailrace.errors import SettingsError

if TYPE_CHECKING:
    from tailrace.export.choice import Choice
    from tailrace.export.source import Source
    from tailrace.export.writing import Written
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
    export.add_argument(
        "--jobs", type=int, metavar="N", help="processes (one a core, where there is much)"
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
    from tailrace.export.source import Source

    choice = Choice(
        min_reward=arguments.min_reward,
        max_reward=arguments.max_reward,
        versions=None if arguments.versions is None else versions(arguments.versions),
        tenants=tuple(arguments.tenant or ()),
        without_consent=arguments.without_consent,
    )
    if arguments.jobs is not None and arguments.jobs < 1:
        raise SettingsError(f"export: --jobs: {arguments.jobs} is not 1 or more")
    source = Source.of(log, common, arguments.since, arguments.until)
    found = exported(
        source,
        choice,
        arguments.to,
        arguments.format,
        good_above=arguments.good_above,
        margin=arguments.margin,
        jobs=arguments.jobs or source.jobs(),
    )
    if arguments.json:
        print(json.dumps(found))
        return 0
    for reason, count in found["left_out"].items():
        print(f"left out, {reason}: {count}", file=sys.stderr)
    print(f"{found['rows']} rows of {found['read']} trajectories in {arguments.to}")
    return 0


def exported(
    source: Source,
    choice: Choice,
    folder: Path,
    form: str,
    *,
    good_above: float = 0.0,
    margin: float = 0.0,
    shard_rows: int = SHARD_ROWS,
    jobs: int = 1,
) -> dict[str, Any]:
    """Write a data set. Gives ``read``, ``rows`` and ``left_out`` by reason. ``jobs``: processes;
    more than one need a broker that they reach."""
    from tailrace.export import writing
    from tailrace.export.shards import Folder
    from tailrace.export.source import Job, work

    with Folder(folder) as made:
        if form in ("dpo", "reward"):
            written = writing.pairs(source, choice, made.made, form, margin, shard_rows)
        else:
            job = Job(
                choice=choice,
                folder=str(made.made),
                form=form,
                good_above=good_above,
                shard_rows=shard_rows,
            )
            written = work(source, job, jobs)
        made.finish(_card(form, written, source.prefix))
    left_out = {reason: count for reason, count in sorted(written.left_out.items()) if count}
    return {
        "format": form,
        "to": str(folder),
        "read": written.read,
        "rows": written.rows,
        "left_out": left_out,
    }


def _card(form: str, written: Written, prefix: str) -> str:
    suffix = "jsonl" if form == "jsonl" else "parquet"
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: data/*.{suffix}\n---\n\n"
        f"{written.rows} rows ({form}), made by tailrace export of {written.read} trajectories"
        f"{f' under {prefix}' if prefix else ''}.\n"
    )
