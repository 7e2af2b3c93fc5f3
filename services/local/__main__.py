"""``python -m services.local up``: the whole system until a signal. ``demo``: with simulated users.

Exit codes of ``up``: 0 after a signal, 1 when the system could not be started or was lost, 2 when
the settings are wrong or another runner has the state directory.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.local.document import Document
    from services.local.settings import Settings
    from services.local.status import Event


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
    """Run the system without users until SIGTERM or SIGINT; a second one kills what still runs."""
    from services.local import entrance

    parser = argparse.ArgumentParser(prog="tailrace up", description=up.__doc__)
    entrance.add_options(parser)
    return entrance.enter(parser.parse_args(argv), _run)


def _run(settings: Settings, user: Document) -> int:
    from services.local import entrance
    from services.local.runner import Runner, Stopped

    stop, hurry = threading.Event(), threading.Event()
    entrance.on_signals((stop, hurry), (stop, hurry))
    runner = Runner(settings, _show, user=user, stopping=stop, hurrying=hurry)
    try:
        runner.start()
    except Stopped:
        return 0
    assert runner.addresses is not None
    print(f"         ready    chat and feedback: {runner.addresses.gateway}/v1", flush=True)
    print(f"         ready    records and feedback: {runner.addresses.kafka} (Kafka)", flush=True)
    if runner.addresses.dashboard is not None:
        print(f"         ready    see it live: {runner.addresses.dashboard}", flush=True)
    print(f"         ready    settings of all: {runner.settings_file}", flush=True)
    while not stop.wait(0.5):
        if runner.lost.is_set():
            runner.stop()
            return 1
    runner.stop()
    return 0


def _show(event: Event) -> None:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time_s))
    print(f"{clock} {event.name:<8} {event.text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
