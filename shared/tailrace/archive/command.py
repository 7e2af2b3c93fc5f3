"""``tailrace archive`` and ``tailrace restore``. Called by :mod:`tailrace.cli` and
:mod:`tailrace.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``archive`` and ``restore``. ``command`` adds one with the options that say where the log
    is."""
    archive = command(commands, "archive", "keep all topics as files; what is new, each time")
    archive.add_argument("--to", required=True, metavar="URL", help="of a store: s3://..., a path")
    archive.add_argument("--json", action="store_true")
    restore = command(commands, "restore", "bring an archive back under a prefix of its own")
    restore.add_argument("--from", dest="source", required=True, metavar="URL", help="the archive")
    restore.add_argument("--to-prefix", required=True, metavar="P", help="a new one")
    restore.add_argument("--resume", action="store_true", help="go on with what is under P")
    restore.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Archive or restore; 0. Raises BrokenArchive, ValueError, LogError."""
    try:
        if arguments.command == "archive":
            return _archive(arguments, common, log)
        return _restore(arguments, common, log)
    except OSError as error:
        raise ValueError(f"{error}") from error


def _archive(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    import msgspec

    from tailrace.archive.saving import Saver
    from tailrace.archive.shelf import Shelf

    shelf = Shelf(arguments.to)
    kept = Saver(log, common.prefix, shelf, registry=common.registry, say=_say).run()
    if arguments.json:
        print(msgspec.json.encode(kept).decode())
        return 0
    for place in kept.open:
        print(f"{place}: a transaction is open, the rest is for the next run", file=sys.stderr)
    for place in kept.lost:
        print(f"{place}: expired before it was archived", file=sys.stderr)
    if kept.elsewhere:
        print(
            f"{kept.elsewhere} new manifests name keyframes in a store of their own: those are not "
            "in the archive, keep that store too",
            file=sys.stderr,
        )
    print(f"{kept.records} records, {kept.bytes} bytes in {kept.segments} segments, verified")
    return 0


def _restore(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    import msgspec

    from tailrace.archive.restoring import Restorer
    from tailrace.archive.shelf import Shelf

    restorer = Restorer(
        log,
        arguments.to_prefix,
        Shelf(arguments.source),
        resume=arguments.resume,
        registry=common.registry,
        say=_say,
    )
    restored = restorer.run()
    if arguments.json:
        print(msgspec.json.encode(restored).decode())
        return 0
    for name, count in restored.records.items():
        print(f"{name}: {count}")
    total = sum(restored.records.values())
    print(f"{total} records under {arguments.to_prefix}, each as it was archived")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
