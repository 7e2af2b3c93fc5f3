"""``tailrace dead-letters``: records that could not be used, listed, shown and brought back.

Called by :mod:`tailrace.cli`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import json
import sys
from typing import TYPE_CHECKING, Any

from tailrace.errors import SettingsError
from tailrace.tail import as_it_is

if TYPE_CHECKING:
    from tailrace.log.base import Log, LogRecord
    from tailrace.reading import Item
    from tailrace.settings import Common

_OWN_HEADERS = ("tailrace-reason", "tailrace-detail", "tailrace-source", "tailrace-time-ms")
_SHOWN_BYTES = 4096
_ROW = 64
"""Digits in a line of hex: of 32 bytes."""


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``dead-letters`` and its actions. ``command`` adds one with the options that say where the
    log is."""
    text = "list records that could not be used, show one, bring them back"
    letters = command(commands, "dead-letters", text)
    letters.add_argument("action", choices=("list", "show", "replay"))
    letters.add_argument("offset", nargs="?", type=int, help="of one, to show or to bring back")
    letters.add_argument("--since", metavar="T", help="from here (the oldest record)")
    letters.add_argument("--reason", help="only those with this reason")
    letters.add_argument("--json", action="store_true", help="show it for programs, whole")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """One action; the exit code. Raises TailraceError and ValueError."""
    action, offset, prefix = arguments.action, arguments.offset, common.prefix
    if action == "show" and offset is None:
        raise SettingsError("dead-letters: name the offset of the one to show")
    if action == "list" and offset is not None:
        raise SettingsError("dead-letters: all are listed; name an offset to show or replay")
    if offset is not None and (arguments.since or arguments.reason):
        raise SettingsError("dead-letters: --since and --reason do not go with an offset")
    if action == "show":
        _show(letter_at(log, offset, prefix=prefix), as_json=arguments.json)
        return 0
    if offset is not None:
        found: Iterable[LogRecord] = [letter_at(log, offset, prefix=prefix)]
    else:
        found = _found(log, prefix, arguments.since, arguments.reason)
    if action == "replay":
        print(f"{replay(log, found, prefix=prefix)} records appended again")
    else:
        for record in found:
            print(json.dumps(_letter(record)))
    return 0


def letter_at(log: Log, offset: int, *, prefix: str = "") -> LogRecord:
    """One dead letter. Raises ValueError where there is none at this offset, LogError."""
    from tailrace.seek import records_at
    from tailrace.topics import DEAD_LETTERS, named

    name = named(DEAD_LETTERS, prefix)
    found = records_at(log, [(name, 0, offset)]).get((name, 0, offset))
    if found is None or found.offset != offset:
        start, end = log.starts(name)[0], log.ends(name)[0]
        there = f"there are {start} to {end - 1}" if end > start else "there is none"
        raise ValueError(f"no dead letter at offset {offset}: {there}")
    return found


def _show(record: LogRecord, *, as_json: bool) -> None:
    from tailrace.explain import clock, plain

    value, headers = record.value or b"", {}
    for name in record.headers:
        if name not in _OWN_HEADERS:
            headers[name] = _header(record, name)
    key = None if record.key is None else record.key.decode(errors="replace")
    if as_json:
        more = {"time_ms": record.time_ms, "key": key, "headers": headers}
        print(json.dumps(_letter(record) | more | as_it_is(value)))
        return
    letter = _letter(record)
    lines = [f"dead-letters/{record.partition}/{record.offset}, {clock(record.time_ms)}"]
    lines += [f"reason  {letter['reason']}: {letter['detail']}"]
    lines += [f"from    {letter['source']}"]
    lines += [f"key     {key}"]
    lines += [f"header  {name}: {text}" for name, text in headers.items()]
    whole = _header(record, "tailrace-truncated")
    lines += [f"{len(value)} bytes" + (f", cut: it had {whole}" if whole else "")]
    shown = as_it_is(value, _SHOWN_BYTES)
    if "text" in shown:
        lines += [f"  {line}" for line in shown["text"].splitlines()]
    else:
        digits = shown["hex"]
        lines += [f"  {digits[at : at + _ROW]}" for at in range(0, len(digits), _ROW)]
    if len(value) > _SHOWN_BYTES:
        lines += [f"and {len(value) - _SHOWN_BYTES} bytes more (--json has them)"]
    print("\n".join(plain(line) for line in lines))


def _found(log: Log, prefix: str, since: str | None, reason: str | None) -> Iterable[LogRecord]:
    from tailrace import reading

    items: Iterable[Item] = reading.read("dead-letters", log=log, prefix=prefix, since=since)
    for record, _ in items:
        if reason is None or _header(record, "tailrace-reason") == reason:
            yield record


def replay(log: Log, letters: Iterable[LogRecord], *, prefix: str = "") -> int:
    """Append dead letters again to the topics they came from; how many.

    A replayed record gets new coordinates; the old ones keep their outcome. In a copy of another
    prefix it keeps the time at which it was appended first, while the record it came from is there.
    A letter that was cut is left, and said to be: the rest of it is where it came from. Raises
    LogError.
    """
    from tailrace.replaying.plan import found
    from tailrace.topics import TOPICS, named

    known = {named(topic, prefix) for topic in TOPICS}
    copy = found(log, prefix)[0] is not None
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
            if copy:
                headers |= _first_appended(log, source)
            producer.append(name, record.value, key=record.key, headers=headers)
            brought_back += 1
        producer.flush()
    finally:
        producer.close()
    return brought_back


def _first_appended(log: Log, source: str) -> dict[str, bytes]:
    """The header of the original time, which a letter's own has the place of. None of a record that
    has expired."""
    from tailrace.replaying.plan import TIME
    from tailrace.seek import records_at

    topic, partition, offset = source.rsplit("/", 2)
    try:
        spot = (topic, int(partition), int(offset))
    except ValueError:
        return {}
    record = records_at(log, [spot]).get(spot)
    if record is None or record.offset != spot[2] or TIME not in record.headers:
        return {}
    return {TIME: record.headers[TIME]}


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
