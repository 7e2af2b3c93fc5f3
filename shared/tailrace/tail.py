"""``tailrace tail``: a topic as JSON lines, its newest part or as it comes.

Called by :mod:`tailrace.cli`; :func:`show` is also how ``tailrace replay`` prints a stretch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.reading import Item
    from tailrace.settings import Common


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``tail``. ``command`` adds one with the options that say where the log is."""
    text = "print a topic as JSON lines, newest part or as it comes"
    tail = command(commands, "tail", text)
    tail.add_argument("topic")
    tail.add_argument(
        "--since", metavar="T", help="10m (ago), 2026-11-20T12:00Z or milliseconds (10m)"
    )
    tail.add_argument("--follow", "-f", action="store_true", help="go on as records come")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Print; the exit code. Raises TailraceError and ValueError."""
    from tailrace import reading

    since = arguments.since
    if since is None and not arguments.follow:
        since = "10m"
    items = reading.read(
        arguments.topic,
        log=log,
        prefix=common.prefix,
        registry=common.registry,
        since=since,
        follow=arguments.follow,
    )
    show(items, flush=arguments.follow)
    return 0


def stretch(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """The same for ``tailrace replay``: a stretch that ends."""
    from tailrace import reading

    items = reading.read(
        arguments.topic,
        log=log,
        prefix=common.prefix,
        registry=common.registry,
        since=arguments.since,
        until=arguments.until,
    )
    show(items, events=arguments.events)
    return 0


def show(items: Iterable[Item], *, events: bool = False, flush: bool = False) -> None:
    """Each as one line: a record with its coordinates, or its event alone; what is none is then
    said to be, to standard error."""
    from tailrace import reading

    for item in items:
        document = reading.as_document(item)
        if events:
            if "event" not in document:
                print(f"not an event: {json.dumps(document)}", file=sys.stderr)
                continue
            document = document["event"]
        print(json.dumps(document, ensure_ascii=False), flush=flush)
