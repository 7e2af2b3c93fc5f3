"""``python -m services.local up``: the whole system until a signal. ``demo``: with simulated users.

Exit codes of ``up``: 0 after a signal, 1 when the system could not be started or was lost, 2 when
the settings are wrong or another runner has the state directory.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import sys
import time

from tailrace import process
from tailrace.errors import SettingsError
from tailrace.settings import load


def main(argv: list[str] | None = None) -> int:
    """Dispatch; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["demo"]:
        from services.local.demo import main as demo

        return demo(argv[1:])
    if argv[:1] == ["up"]:
        return up(argv[1:])
    print("usage: python -m services.local {up,demo} [options]", file=sys.stderr)
    return 0 if argv[:1] in (["-h"], ["--help"]) else 2


def up(argv: list[str]) -> int:
    """Run the system without users until SIGTERM or SIGINT."""
    from services.local import document
    from services.local.jars import PreparationError
    from services.local.lock import AlreadyRunning
    from services.local.preflight import Shortage
    from services.local.runner import Runner, StartError, Stopped
    from services.local.settings import Settings
    from services.local.status import Event

    parser = argparse.ArgumentParser(prog="tailrace up", description=up.__doc__)
    parser.add_argument("--settings", type=Path, help="settings file (TOML)")
    parser.add_argument("--state-dir", type=Path, help="where data lives (default .tailrace)")
    arguments = parser.parse_args(argv)
    environment = dict(os.environ)
    if arguments.state_dir is not None:
        environment["TAILRACE_LOCAL_STATE_DIR"] = str(arguments.state_dir)
    try:
        settings = load(Settings, "local", environment, arguments.settings)
        user = document.read(arguments.settings, environment)
    except SettingsError as error:
        print(f"local: {error}", file=sys.stderr)
        return 2

    def show(event: Event) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(event.time_s))
        print(f"{clock} {event.name:<8} {event.text}", flush=True)

    stop = process.stopping()
    runner = Runner(settings, show, user=user, stopping=stop)
    try:
        runner.start()
    except Stopped:
        return 0
    except (AlreadyRunning, SettingsError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 2
    except (Shortage, PreparationError, StartError, ValueError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 1
    assert runner.addresses is not None
    print(f"         ready    chat and feedback: {runner.addresses.gateway}/v1", flush=True)
    print(f"         ready    settings of all: {runner.settings_file}", flush=True)
    while not stop.wait(0.5):
        if runner.lost.is_set():
            runner.stop()
            return 1
    runner.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
