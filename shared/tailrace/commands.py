"""What the sub-commands of ``tailrace`` do once options and settings are known.

Called by :mod:`tailrace.cli`; output is JSON lines, or words where a person asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import math
import re
import sys
import time
import tomllib
from typing import TYPE_CHECKING

import msgspec

from tailrace import deadletters, evaluation, models, overview, replay, tail, why
from tailrace.archive import command as archive
from tailrace.compare import command as compare
from tailrace.errors import LogError
from tailrace.export import command as export
from tailrace.log.base import Log
from tailrace.settings import Common

if TYPE_CHECKING:
    from tailrace.recount import Reader
    from tailrace.report import Report

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""``float`` takes more: nan, inf, 1_000 and the digits of every script."""
REACH_S = 10.0


def run(arguments: argparse.Namespace, common: Common) -> int:
    """One command; the exit code. Raises TailraceError and ValueError, for the caller to say."""
    if arguments.command == "send":
        return _send(arguments, common)
    if arguments.command == "eval":
        return evaluation.run(arguments, common, _gateway)
    if arguments.command == "reward" and arguments.action == "try":
        return _try(arguments, common)
    if arguments.command == "replay":
        replay.check(arguments)
        if arguments.train:
            return replay.train(arguments, common)
    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(common.kafka)
    try:
        log.reach(REACH_S)  # each later request waits longer, and a person is waiting
        if arguments.command == "status":
            return _status(arguments, common, log)
        if arguments.command == "audit":
            return _audit(arguments, common, log)
        if arguments.command == "models":
            return models.run(arguments, common, log)
        if arguments.command == "reward":
            return _explain(arguments, common, log)
        if arguments.command == "tail":
            return tail.run(arguments, common, log)
        if arguments.command in ("archive", "restore"):
            return archive.run(arguments, common, log)
        if arguments.command == "compare":
            return compare.run(arguments, common, log)
        if arguments.command == "export":
            return export.run(arguments, common, log)
        if arguments.command == "replay" and arguments.to_prefix is not None:
            return replay.copy(arguments, common, log)
        if arguments.command == "replay":
            return tail.stretch(arguments, common, log)
        if arguments.command in ("topics", "lag"):
            return overview.run(arguments, common, log)
        if arguments.command == "why":
            return why.run(arguments, common, log)
        if arguments.command == "dead-letters":
            return deadletters.run(arguments, common, log)
    finally:
        log.close()
    raise AssertionError(arguments.command)


def _status(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    from tailrace import status

    found = status.gather(log, common)
    print(json.dumps(found) if arguments.json else "\n".join(status.in_words(found)))
    return 0


def _audit(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    from tailrace import audit
    from tailrace.deadline import Deadline, window_s
    from tailrace.recount import Reader
    from tailrace.wire import Wire

    if arguments.decide_within is None:
        deadline = Deadline(window_s=window_s(common.state_dir / "settings.toml"))
    else:
        deadline = Deadline(ticked_s=arguments.decide_within)
    wire = Wire(common.registry)
    trust = common.trusted_keys
    reader = Reader(
        log, wire, model=common.model, prefix=common.prefix, deadline=deadline, trust=trust
    )
    if arguments.follow:
        report = follow(reader, arguments.every, arguments.head, as_json=arguments.json)
    else:
        report = reader.read().report(arguments.head)
    if arguments.json:
        print(msgspec.json.encode(report).decode())
    else:
        print("\n".join(audit.in_words(report)))
    return 0 if report.ok else 1


def follow(
    reader: Reader,
    every_s: float,
    head: int | None = None,
    *,
    as_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Print the account every few seconds until Ctrl-C; the last report.

    A broker that is away is said to be, and asked again. Raises KeyboardInterrupt before the first
    report.
    """
    from tailrace.recount import in_a_line

    report = None
    try:
        while True:
            try:
                report = reader.read().report(head)
            except LogError as error:
                print(f"tailrace audit: {error}", file=sys.stderr)
            else:
                now_ms = time.time_ns() // 1_000_000
                line = msgspec.json.encode(report).decode() if as_json else ""
                print(line or in_a_line(report, now_ms), flush=True)
            sleep(every_s)
    except KeyboardInterrupt:
        if report is None:
            raise
    return report


def _explain(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    from tailrace import explain

    found = explain.gather(
        log, arguments.interaction, prefix=common.prefix, registry=common.registry
    )
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(explain.in_words(found)))
    return 0


def _try(arguments: argparse.Namespace, common: Common) -> int:
    """The spec, its terms and the join are the rewards process' own: that does it."""
    from tailrace.cli import run_in_checkout

    argv = [arguments.spec, "--since", arguments.since]
    for name, given in (
        ("until", arguments.until),
        ("kafka", common.kafka),
        ("prefix", common.prefix),
        ("registry", common.registry),
    ):
        argv += [f"--{name}", given] if given else []
    if arguments.json:
        argv += ["--json"]
    return run_in_checkout("services.rewards.trial", argv, name="reward try")


def _send(arguments: argparse.Namespace, common: Common) -> int:
    from tailrace.client import Client

    url = arguments.url or _gateway(common)
    with Client(url, arguments.key) as client:
        print(
            client.feedback(
                arguments.subject,
                value(arguments.value, arguments.kind or arguments.metric),
                metric=arguments.metric,
                kind=arguments.kind,
                choice=arguments.choice,
                preferred_over=arguments.preferred_over,
                feedback_id=arguments.id,
                replaces=arguments.replaces,
            )
        )
    return 0


def value(text: str | None, metric: str) -> bool | float | str | None:
    """What a value on the command line is: true, false, a decimal number, else text. Comments are
    text; ``metric`` may also be a kind.

    >>> value("true", "thumbs"), value("4", "stars"), value("4", "comment"), value("nan", "grade")
    (True, 4.0, '4', 'nan')
    """
    if text is None or metric in ("comment", "demonstration", "category"):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return float(text) if _NUMBER.fullmatch(text) and math.isfinite(float(text)) else text


def _gateway(common: Common) -> str:
    try:
        document = tomllib.loads((common.state_dir / "settings.toml").read_text())
        return f"http://127.0.0.1:{document['gateway']['port']}"
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise ValueError(f"no gateway: give --url (nothing runs in {common.state_dir})") from None
