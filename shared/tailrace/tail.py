"""``tailrace tail``: a topic as JSON lines, its newest part or as it comes.

No record ends it: bytes that are no event are shown as what they are, and what would move a
terminal is escaped. Called by :mod:`tailrace.cli`; :func:`show` is also how ``tailrace replay``
prints a stretch.
"""

from __future__ import annotations

import argparse
import codecs
from collections.abc import Callable, Iterable
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.reading import Item
    from tailrace.settings import Common

_SHOWN_BYTES = 256
"""Of a value that is no event."""


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``tail``. ``command`` adds one with the options that say where the log is."""
    text = "print a topic as JSON lines, newest part or as it comes"
    tail = command(commands, "tail", text)
    tail.add_argument("topic", help="its name, without prefix")
    begin = tail.add_mutually_exclusive_group()
    begin.add_argument(
        "--since",
        metavar="T",
        help="10m (ago), 2026-11-20T12:00Z or milliseconds (10m; with --follow: now)",
    )
    begin.add_argument("--from-beginning", action="store_true", help="from the oldest record")
    tail.add_argument("--follow", "-f", action="store_true", help="go on as records come")
    tail.add_argument(
        "--filter", metavar="TEXT", help="only lines that contain this, in upper or lower case"
    )
    form = tail.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="records with their coordinates (it is what is shown)"
    )
    form.add_argument("--events", action="store_true", help="the events alone")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Print; the exit code. Ctrl-C is the end of what is followed. Raises TailraceError and
    ValueError."""
    from tailrace import reading

    since = arguments.since
    if arguments.from_beginning:
        since = "0"
    elif since is None and not arguments.follow:
        since = "10m"
    items = reading.read(
        arguments.topic,
        log=log,
        prefix=common.prefix,
        registry=common.registry,
        since=since,
        follow=arguments.follow,
    )
    try:
        show(items, events=arguments.events, text=arguments.filter, flush=arguments.follow)
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
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


def show(
    items: Iterable[Item], *, events: bool = False, text: str | None = None, flush: bool = False
) -> None:
    """Each as one line: a record with its coordinates, or its event alone; what is none is then
    said to be, to standard error. ``text``: only lines that contain it."""
    for item in items:
        document = _document(item)
        event = document.get("event")
        told = _line(document if event is None or not events else event)
        if text is not None and text.casefold() not in told.casefold():
            continue
        if events and event is None:
            print(f"not an event: {told}", file=sys.stderr)
        else:
            print(told, flush=flush)


def _document(item: Item) -> dict[str, Any]:
    from tailrace import reading, topics

    document = reading.as_document(item)
    record = item[0]
    if "event" not in document and not record.topic.endswith(topics.DEAD_LETTERS.name):
        document |= as_it_is(record.value or b"", _SHOWN_BYTES)
    return document


def as_it_is(value: bytes, most: int | None = None) -> dict[str, str]:
    """Bytes, or the first of them, as ``text`` where they are some, else as ``hex``.

    >>> as_it_is(b"abc", 2), as_it_is(b"\\xff")
    ({'text': 'ab'}, {'hex': 'ff'})
    """
    part = value[:most]
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(part, final=len(part) == len(value))
    except UnicodeDecodeError:
        return {"hex": part.hex()}
    return {"text": text} if "\0" not in text else {"hex": part.hex()}


def _line(document: dict[str, Any]) -> str:
    """As JSON, on a terminal of any kind: what it could take for an order, or not show, is
    escaped."""
    wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    line = json.dumps(document, ensure_ascii=not wide)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
