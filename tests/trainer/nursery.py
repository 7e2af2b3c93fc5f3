"""Runs the trainer's real ``main`` again and again, killed with SIGKILL at one commit point each.

``python -m tests.trainer.nursery SETTINGS MODEL POINT...``: a child per point, forked after the
heavy imports, of which loading the model makes the most, so that each starts at once. The last
point, ``run``, is a trainer that lives until SIGTERM.
A line is written for each: ``<point> <pid>`` at its start, ``<point> <wait status>`` at its end.
"""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys

from services.trainer.__main__ import main
from services.trainer.learner import deterministic
from services.trainer.trainer import Policy
from tailrace.log import kafka


def live(settings: str, point: str) -> int:
    """One trainer, killed when it comes to ``point``."""

    def crash(at: str) -> None:
        if at == point:
            os.kill(os.getpid(), signal.SIGKILL)

    commit = kafka.KafkaProducer.commit

    def commit_or_die(producer: kafka.KafkaProducer) -> None:
        crash("uncommitted")
        commit(producer)
        crash("committed")

    kafka.KafkaProducer.commit = commit_or_die  # type: ignore[method-assign]
    return main(["--settings", settings], crash)


if __name__ == "__main__":
    deterministic(1)  # threads would not survive the fork
    Policy(Path(sys.argv[2]))
    for point in sys.argv[3:]:
        pid = os.fork()
        if pid == 0:
            os._exit(live(sys.argv[1], point))
        print(point, pid, flush=True)
        print(point, os.waitpid(pid, 0)[1], flush=True)
