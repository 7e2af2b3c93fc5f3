"""``tailrace demo``: the whole system with simulated users, watched live, summed up at its end.

start everything -> users ask and vote for ``--minutes`` after the first answer -> users stop ->
drain (votes joined, trajectories decided) -> audit -> stop everything -> summary.

Progress goes to standard error when ``--json`` is given, so that standard output is the summary
alone. Ctrl-C ends the run early but in order; a second one, or SIGTERM, stops everything now; one
more while it stops kills what still runs.
Exit codes: 0; 1 when the system could not be run, nobody got an answer or the account does not
balance; 2 wrong settings, or another runner has the state directory; 130 when stopped by a signal.
"""

from __future__ import annotations

import argparse
import json
import threading
from typing import Any

from services.local import document, entrance
from services.local.conductor import Aborted, Conductor
from services.local.document import Document
from services.local.settings import Settings
from services.local.tastes import TASTES


def parser() -> argparse.ArgumentParser:
    """The options of the demo."""
    found = argparse.ArgumentParser(prog="tailrace demo", description="Users teach a model, live.")
    wants = "; ".join(f"{taste.name}: answers that {taste.wants}" for taste in TASTES.values())
    found.add_argument(
        "--taste", choices=TASTES, default="short", help=f"what the users secretly like. {wants}"
    )
    found.add_argument(
        "--minutes", type=float, default=5.0, metavar="M", help="after the first answer (5)"
    )
    found.add_argument("--seed", type=int, default=0, metavar="S", help="of users and trainer (0)")
    found.add_argument(
        "--in-flight", type=int, default=8, metavar="N", help="questions at the same time (8)"
    )
    found.add_argument(
        "--rate", type=float, default=8.0, metavar="R", help="questions a second at most (8)"
    )
    found.add_argument("--json", action="store_true", help="the summary as JSON, on one line")
    entrance.add_options(found)
    return found


def main(argv: list[str]) -> int:
    """Run the demo; the exit code."""
    arguments = parser().parse_args(argv)
    return entrance.enter(arguments, lambda settings, user: _run(settings, user, arguments))


def _run(settings: Settings, user: Document, arguments: argparse.Namespace) -> int:
    user = document.merge(demo_settings(arguments.seed), user)
    finish, abort, hurry = threading.Event(), threading.Event(), threading.Event()
    entrance.on_signals((finish, abort, hurry), (abort, hurry))
    conductor = Conductor(settings, user, arguments, finish=finish, abort=abort, hurry=hurry)
    try:
        result = conductor.run()
    except Aborted:
        return 130
    if arguments.json:
        print(json.dumps(result), flush=True)
    balanced = result["audit"]["ok"] and not result["feedback"]["unaccounted"]
    return 0 if balanced and result["interactions"] else 1


def demo_settings(seed: int) -> dict[str, Any]:
    """What the demo sets for the services where the user did not."""
    return {
        # Too hot for real traffic, but a few steps are all there is time for. So the baseline
        # follows faster too, and dislikes, which late in the play are mostly slips, weigh less.
        "trainer": {"seed": seed, "lr": 3e-5, "baseline_decay": 0.7, "negative_weight": 0.5},
    }
