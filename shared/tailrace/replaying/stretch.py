"""Which records a replay takes: from a time or a place, to a time or now.

In: what the user asked for. Out: a :class:`~tailrace.replaying.plan.Plan` with fixed offsets, or
the reason why there is none. What was asked for and may have expired is refused: where the first
record that a partition keeps lies within the stretch, and something before it is gone, nobody can
say whether that was of the stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
import re

from tailrace import topics
from tailrace.log.base import Log
from tailrace.reading import moment_ms
from tailrace.replaying.plan import COPIED, INPUTS, Offsets, Plan, found
from tailrace.stream import read_all
from tailrace.topics import named

Place = tuple[str, int, int]
"""Topic (bare), partition, offset."""


def place(text: str, prefix: str = "") -> Place:
    """``prompts/0/120`` as a place of an input topic. Raises ValueError.

    >>> place("prompts/0/120")
    ('prompts', 0, 120)
    """
    match = re.fullmatch(r"(.+)/(\d+)/(\d+)", text)
    name = match[1].removeprefix(prefix) if match else ""
    if match is None or name not in {topic.name for topic in INPUTS}:
        raise ValueError(f"{text!r} is no place of prompts, outputs or feedback (prompts/0/120)")
    return name, int(match[2]), int(match[3])


def planned(
    log: Log,
    source: str,
    *,
    now_ms: int,
    since: str | int | None = None,
    until: str | int | None = None,
    places: Sequence[str] = (),
    filters: Sequence[str] = (),
    kept: bool = False,
) -> Plan:
    """The stretch of a prefix.

    ``places``: those partitions begin there, all others at the time of the oldest of them, unless
    ``since`` says when. ``kept``: where something is gone, begin with what is kept.

    Raises ValueError for what is no time or place, an empty stretch, and one that has expired;
    LogError.
    """
    since_ms = None if since is None else moment_ms(since, now_ms)
    until_ms = None if until is None else moment_ms(until, now_ms)
    asked = [place(text, source) for text in places]
    copy = found(log, source)[0] is not None
    low = {topic.name: log.starts(named(topic, source)) for topic in COPIED}
    high = {topic.name: log.ends(named(topic, source)) for topic in COPIED}
    for name, partition, offset in asked:
        if partition not in low[name]:
            raise ValueError(f"{source}{name} has no partition {partition}")
        if offset < low[name][partition]:
            raise ValueError(
                f"{source}{name}/{partition}/{offset} has expired: the oldest kept is "
                f"{low[name][partition]}"
            )
        if offset >= high[name][partition]:
            raise ValueError(
                f"{source}{name}/{partition}/{offset} is not there: the end is "
                f"{high[name][partition]}"
            )
    if asked and since_ms is None:
        since_ms = min(_time_at(log, source, where, copy) for where in asked)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise ValueError("--since is not before --until")
    starts = _offsets(log, source, low, None if copy else since_ms)
    if since_ms is not None and not kept:
        _refuse_expired(log, source, low, high, starts, since_ms, copy)
    for name, partition, offset in asked:
        starts[name][partition] = offset
    ends = _offsets(log, source, high, None if copy else until_ms)
    if not any(ends[n][p] > at for n in starts if n != "ticks" for p, at in starts[n].items()):
        raise ValueError("there is no record in that stretch")
    return Plan(
        source=source,
        partitions=len(low[topics.PROMPTS.name]),
        starts=starts,
        ends=ends,
        since_ms=since_ms,
        until_ms=until_ms,
        by_header=copy,
        filters=list(filters),
    )


def _offsets(log: Log, source: str, default: Offsets, time_ms: int | None) -> Offsets:
    if time_ms is None:
        return {name: dict(offsets) for name, offsets in default.items()}
    return {name: log.offsets_at(source + name, time_ms) for name in default}


def _refuse_expired(
    log: Log,
    source: str,
    low: Offsets,
    high: Offsets,
    starts: Offsets,
    since_ms: int,
    copy: bool,
) -> None:
    for name in low:
        for partition, oldest in low[name].items():
            if oldest == 0 or starts[name][partition] > oldest:
                continue
            lost = f"{source}{name}/{partition}: what came before offset {oldest} has expired"
            if oldest == high[name][partition]:
                raise ValueError(f"{lost}, and nothing is kept; --kept replays what there is")
            kept_ms = _time_at(log, source, (name, partition, oldest), copy)
            if kept_ms > since_ms:
                at = datetime.fromtimestamp(kept_ms / 1000, UTC).isoformat(timespec="milliseconds")
                raise ValueError(
                    f"{lost}, the oldest kept is of {at}: begin there or later, or --kept "
                    "replays what there is"
                )


def _time_at(log: Log, source: str, where: Place, copy: bool) -> int:
    """Append time of the first record at or after a place."""
    from tailrace.replaying.plan import time_of

    name, partition, offset = where
    topic = source + name
    ends = {partition: log.ends(topic)[partition]}
    for record in read_all(log, topic, starts={partition: offset}, ends=ends):
        return time_of(record.time_ms, record.headers, by_header=copy)
    raise ValueError(f"{topic}/{partition}/{offset}: no record lies there or after it")
