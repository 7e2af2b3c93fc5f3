"""What ``up`` and ``demo`` have in common at the terminal: options, settings, signals, exit codes.

In: a command's arguments. Out: its exit code; what went wrong is on standard error. Called by
``services/local/__main__.py`` and :mod:`services.local.demo`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import os
from pathlib import Path
import signal
import sys
import threading

from services.local import document
from services.local.document import Document
from services.local.lock import AlreadyRunning
from services.local.settings import Settings
from tailrace.errors import SettingsError, TailraceError
from tailrace.settings import load


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the settings and the data are."""
    parser.add_argument("--settings", type=Path, metavar="F", help="settings file (TOML)")
    parser.add_argument(
        "--state-dir", type=Path, metavar="D", help="where data lives (default .tailrace)"
    )


def enter(arguments: argparse.Namespace, run: Callable[[Settings, Document], int]) -> int:
    """Run with the settings and what the user set for the services; the exit code.

    1 when ``run`` raised, 2 for wrong settings and for a state directory that another has.
    """
    environment = dict(os.environ)
    if arguments.state_dir is not None:
        environment["TAILRACE_LOCAL_STATE_DIR"] = str(arguments.state_dir)
    try:
        settings = load(Settings, "local", environment, arguments.settings)
        return run(settings, document.read(arguments.settings, environment))
    except (AlreadyRunning, SettingsError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, ValueError, TailraceError, OSError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 1


def on_signals(interrupt: Sequence[threading.Event], terminate: Sequence[threading.Event]) -> None:
    """Each SIGINT sets the first event of ``interrupt`` that is not set, SIGTERM of ``terminate``.

    So every further signal asks for a faster end. For the main thread.
    """
    for number, events in ((signal.SIGINT, interrupt), (signal.SIGTERM, terminate)):

        def handle(
            _number: int, _frame: object, events: Sequence[threading.Event] = events
        ) -> None:
            for event in events:
                if not event.is_set():
                    event.set()
                    return

        signal.signal(number, handle)
