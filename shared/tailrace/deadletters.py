"""``tailrace dead-letters``: records that could not be used, listed and brought back.

Called by :mod:`tailrace.cli`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import json
import sys
from typing import TYPE_CHECKING, Any

from tailrace.topics import TOPICS, named

if TYPE_CHECKING:
    from tailrace.log.base import Log, LogRecord
    from tailrace.reading import Item
    from tailrace.settings import Common

_OWN_HEADERS = ("tailrace-reason", "tailrace-detail", "tailrace-source", "tailrace-time-ms")


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``dead-letters`` and its actions. ``command`` adds one with the options that say where the
    log is."""
    letters = command(
        commands, "dead-letters", "list records that could not be used, bring them back"
    )
    letters.add_argument("action", choices=("list", "replay"))
    letters.add_argument("--since", metavar="T", help="from here (the oldest record)")
    letters.add_argument("--reason", help="only those with this reason")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """One action; the exit code. Raises TailraceError and ValueError."""
    found = _found(log, common.prefix, arguments.since, arguments.reason)
    if arguments.action == "replay":
        print(f"{replay(log, found, prefix=common.prefix)} records appended again")
    else:
        for record in found:
            print(json.dumps(_letter(record)))
    return 0


def _found(log: Log, prefix: str, since: str | None, reason: str | None) -> Iterable[LogRecord]:
    from tailrace import reading

    items: Iterable[Item] = reading.read("dead-letters", log=log, prefix=prefix, since=since)
    for record, _ in items:
        if reason is None or _header(record, "tailrace-reason") == reason:
            yield record


def replay(log: Log, letters: Iterable[LogRecord], *, prefix: str = "") -> int:
    """Append dead letters again to the topics they came from; how many.

    A replayed record gets new coordinates; the old ones keep their outcome. A letter that was cut
    is left, and said to be: the rest of it is where it came from. Raises LogError.
    """
    known = {named(topic, prefix) for topic in TOPICS}
    producer = log.producer()
    brought_back = 0
    try:
        for record in letters:
            source = _header(record, "tailrace-source")
            name = source.rpartition("/")[0].rpartition("/")[0]
            if name not in known:
                print(f"left: offset {record.offset} came from {name!r}", file=sys.stderr)
                continue
            if "tailrace-truncated" in record.headers:
                print(f"left: offset {record.offset} was cut, see {source}", file=sys.stderr)
                continue
            headers = {k: v for k, v in record.headers.items() if k not in _OWN_HEADERS}
            producer.append(name, record.value, key=record.key, headers=headers)
            brought_back += 1
        producer.flush()
    finally:
        producer.close()
    return brought_back


def _letter(record: LogRecord) -> dict[str, Any]:
    return {
        "offset": record.offset,
        "reason": _header(record, "tailrace-reason"),
        "detail": _header(record, "tailrace-detail"),
        "source": _header(record, "tailrace-source"),
        "bytes": len(record.value or b""),
    }


def _header(record: LogRecord, name: str) -> str:
    return record.headers.get(name, b"").decode(errors="replace")
