"""``tailrace keys``: make the keys that sign model updates, and say which key a file holds.

Called by :mod:`tailrace.cli`; the keys themselves are :mod:`tailrace.weights.trust`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """``keys new FILE`` and ``keys id FILE``."""
    text = "make a key that signs model updates, or say which one a file holds"
    keys = commands.add_parser("keys", help=text, description=text)
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="a private key in FILE, its public key in FILE.pub")
    new.add_argument("file", type=Path, metavar="FILE", help="is never written over")
    shown = actions.add_parser("id", help="the id of a key, as the logs and headers have it")
    shown.add_argument("file", type=Path, metavar="FILE", help="a private or a public key")


def run(arguments: argparse.Namespace) -> int:
    """Print the key's id; the exit code. Raises TailraceError and ValueError."""
    from tailrace.weights import trust

    if arguments.action == "new":
        try:
            print(trust.new_key(arguments.file))
        except OSError as error:
            raise ValueError(f"{error.filename or arguments.file}: {error.strerror}") from None
    else:
        print(trust.id_of(arguments.file))
    return 0
