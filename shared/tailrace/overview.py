"""``tailrace topics`` and ``tailrace lag``: what lies on the log, and who is how far behind it.

Called by :mod:`tailrace.cli`; the first exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """Both. ``command`` adds one with the options that say where the log is."""
    for name, text in (
        ("topics", "what each topic is for and holds, and whether it is as it should be"),
        ("lag", "how far each consumer group, and the trainer, is behind the topics"),
    ):
        found = command(commands, name, text)
        found.add_argument("--json", action="store_true", help="for programs, one array")


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """Print one of them; the exit code. Raises TailraceError."""
    import msgspec

    from tailrace import inventory, lag
    from tailrace.log.kafka_admin import KafkaAdmin

    admin = KafkaAdmin(common.kafka)
    if arguments.command == "topics":
        rows = inventory.gather(log, common.prefix, admin.configs)
        lines, ok = inventory.in_words(rows), not any(row.problems for row in rows)
        document = msgspec.json.encode(rows)
    else:
        lags = lag.gather(log, common, admin.committed(common.prefix))
        lines, ok = lag.in_words(lags), True
        document = msgspec.json.encode(lags)
    print(document.decode() if arguments.json else "\n".join(lines))
    return 0 if ok else 1
