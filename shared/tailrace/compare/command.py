"""``tailrace compare P Q``. Called by :mod:`tailrace.cli` and :mod:`tailrace.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``compare``. ``command`` adds one with the options that say where the log is."""
    compare = command(commands, "compare", "what differs between two prefixes, with intervals")
    compare.add_argument("first", metavar="P", help="a prefix; '' is the one without a name")
    compare.add_argument("second", metavar="Q", help="another, held against it")
    compare.add_argument("--since", metavar="T", help="interactions from here: 1h, a time (all)")
    compare.add_argument("--until", metavar="T", help="up to here (now)")
    compare.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Say what differs; 0. Raises ValueError for a prefix that is not there, LogError."""
    import msgspec

    from tailrace.compare.account import read
    from tailrace.compare.comparison import compared, in_words
    from tailrace.reading import moment_ms

    now_ms = time.time_ns() // 1_000_000
    since_ms, until_ms = (
        None if said is None else moment_ms(said, now_ms)
        for said in (arguments.since, arguments.until)
    )
    one, two = (
        read(
            log,
            prefix,
            common.model,
            registry=common.registry,
            since_ms=since_ms,
            until_ms=until_ms,
        )
        for prefix in (arguments.first, arguments.second)
    )
    found = compared(arguments.first, arguments.second, one, two)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(in_words(found)))
    return 0
