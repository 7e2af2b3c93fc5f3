"""Random kills under traffic, and what became of every piece of feedback.

    python -m benchmarks.faults [--kills 20] [--seed 0] [--json]

An embedded broker, two ``python -m services.rewards`` and users (:mod:`tests.faults.traffic`). Each
round users act, then a worker (or, one time in eight, the broker) is killed with -9 at a random
moment and started again. At the end everything is decided and the log is recounted against the
fault-free run on the same log. Exit code 1 when anything was lost, has two outcomes, or differs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import random
import sys
import tempfile
import threading
from typing import Any

from services.rewards import spec
from tests.conftest import TestBroker
from tests.faults.check import Account, await_good
from tests.faults.machine import SPEC, Machine

ROUND_S = 3.0
END_S = 300.0


def soak(broker: TestBroker, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """So many kills, then the account."""
    chance = random.Random(seed)
    machine = Machine(broker.bootstrap, "", folder, seed=seed)
    try:
        for name in ("a", "b"):
            machine.start(name)
        for number in range(kills):
            machine.traffic.some(chance.randint(20, 200), flush=False)
            threading.Event().wait(chance.uniform(0, ROUND_S))
            _kill(machine, broker, chance)
            machine.heal()
            print(f"kill {number + 1} of {kills}", file=sys.stderr)
        machine.traffic.some(50)
        account = _account(machine, folder)
        audit = machine.audit()
        return {
            "kills": kills,
            "feedback": account.feedback,
            "lost": account.lost,
            "conflicts": account.conflicts,
            "trajectories": account.trajectories,
            "trajectories_equal": account.trajectories_equal,
            "audit_balances": audit.returncode == 0,
            "worker_restarts": len(machine.deaths),
        }
    finally:
        machine.close()


def _kill(machine: Machine, broker: TestBroker, chance: random.Random) -> None:
    if chance.randrange(8):
        machine.workers[chance.choice("ab")].kill()
        return
    broker.kill()
    machine.traffic.some(20, flush=False)
    broker.start()
    broker.wait_ready()


def _account(machine: Machine, folder: Path) -> Account:
    (folder / "spec.toml").write_text(SPEC)
    rules = spec.load(folder / "spec.toml")
    account = await_good(machine.bench.log, machine.prefix, rules, machine.heal, END_S)
    for difference in account.differences[:20]:
        print(difference, file=sys.stderr)
    return account


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the result is one JSON object anyway")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailrace-faults-") as name:
        folder = Path(name)
        broker = TestBroker(folder / "kafka")
        try:
            result = soak(broker, folder, options.kills, options.seed)
        finally:
            broker.stop()
    print(json.dumps(result))
    good = result["trajectories_equal"] and result["audit_balances"]
    return 0 if good and not result["lost"] and not result["conflicts"] else 1


if __name__ == "__main__":
    sys.exit(main())
