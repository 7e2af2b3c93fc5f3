"""``tailrace replay --to-prefix``: options in, a copy and its counts out.

Progress goes to standard error, the counts to standard output. Called by :mod:`tailrace.replay`.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from tailrace.errors import SettingsError
from tailrace.log.base import Log
from tailrace.replaying import plan as plans
from tailrace.replaying.filters import Filters
from tailrace.replaying.plan import Done, Plan
from tailrace.replaying.replayer import Progress, Replayer
from tailrace.replaying.stretch import planned

if TYPE_CHECKING:
    from tailrace.settings import Common

_SAID_EVERY_S = 2.0


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Write a stretch again; 0. Raises SettingsError for a wrong speed, ValueError for what is
    refused, LogError."""
    speed = _speed(arguments.speed)
    plan, whole = _planned(arguments, common, log)
    if whole is None:
        plans.copy_schemas(log, common.prefix, arguments.to_prefix, common.registry)
        replayer = Replayer(
            log, plan, arguments.to_prefix, speed=speed, registry=common.registry, say=Line()
        )
        try:
            whole = replayer.run()
        except BaseException:
            print(
                f"{arguments.to_prefix}: not whole; tailrace replay --to-prefix "
                f"{arguments.to_prefix} --resume goes on",
                file=sys.stderr,
            )
            raise
    _say(arguments, plan, whole)
    return 0


def _planned(arguments: argparse.Namespace, common: Common, log: Log) -> tuple[Plan, Done | None]:
    """What is to be copied: what was asked for, or what the prefix says."""
    prefix = arguments.to_prefix
    if prefix == common.prefix:
        raise ValueError(f"prefix {prefix!r} is the original's own")
    if arguments.resume:
        plan, whole = plans.found(log, prefix)
        if plan is None or plan.kind != "replay":
            raise ValueError(f"prefix {prefix!r} holds no replay to go on with")
        if plan.source != common.prefix:
            raise ValueError(f"prefix {prefix!r} holds a replay of prefix {plan.source!r}")
        return plan, whole
    filters = arguments.filter or []
    Filters(filters)
    plans.vacant(log, prefix)
    plan = planned(
        log,
        common.prefix,
        now_ms=time.time_ns() // 1_000_000,
        since=arguments.since,
        until=arguments.until,
        places=arguments.from_offset or (),
        filters=filters,
        kept=arguments.kept,
    )
    plans.begin(log, prefix, plan)
    return plan, None


def _speed(text: str | None) -> float | None:
    if text in (None, "max"):
        return None
    try:
        speed = float(str(text))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise SettingsError(f"replay: --speed: {text!r} is neither a number above 0 nor max")
    return speed


class Line:
    """Progress as lines on standard error, one every few seconds."""

    def __init__(self) -> None:
        self._begun_s = self._said_s = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < _SAID_EVERY_S and progress.behind < progress.total:
            return
        self._said_s = now_s
        rate = progress.copied / max(now_s - self._begun_s, 1e-9)
        share = progress.behind / max(progress.total, 1)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(progress.time_ms / 1000))
        print(
            f"{progress.behind:,} of {progress.total:,} ({share:.0%}), {rate:,.0f} records/s, "
            f"at {at}",
            file=sys.stderr,
        )


def _say(arguments: argparse.Namespace, plan: Plan, done: Done) -> None:
    if arguments.json:
        result = {"prefix": arguments.to_prefix, "plan": plan, "done": done}
        print(msgspec.json.encode(result).decode())
        return
    for name, count in done.records.items():
        left_out = done.left_out[name]
        print(f"{name}: {count}" + (f", left out {left_out}" if left_out else ""))
    print(f"{sum(done.records.values())} records under {arguments.to_prefix}")
