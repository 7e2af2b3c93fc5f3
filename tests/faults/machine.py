"""Reward workers on a broker under traffic, looked after as a supervisor would.

A test (or :mod:`benchmarks.faults`) starts workers by name, lets users act, breaks something, and
calls :meth:`Machine.end`, which brings back what died and recounts the log.
"""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from services.rewards import spec
from services.rewards.producer import EXIT_CODE
from tests.faults.check import Account, await_good
from tests.faults.traffic import Traffic
from tests.rewards.worker import CHECKOUT, Bench, Worker

SPEC = """
wait_s = 0.4
orphan_s = 1
default_reward = 0.1
[metrics.thumbs]
false = -1.0
wait_s = 0.2
session = "last"
[metrics.stars]
aggregate = "mean"
session = "discounted"
[metrics.tone]
categories = { a = 1.0, b = 0.5 }
final = true
[metrics.comment]
text = 0.5
[metrics.choice]
rejected = -1.0
[implicit.next_turn]
wait_s = 0.3
[implicit.retry]
seen = -1.0
wait_s = 0.3
[verifiers.brief]
kind = "length"
max = 3
"""


class Machine:
    """Workers, traffic and the account. ``folder`` holds their files."""

    def __init__(
        self, bootstrap: str, prefix: str, folder: Path, *, seed: int = 0, times: int = 1
    ) -> None:
        self.bootstrap, self.prefix, self.folder = bootstrap, prefix, folder
        self.bench = Bench(bootstrap, prefix)
        self.traffic = Traffic(self.bench.writer, seed, times=times)
        self.workers: dict[str, Worker] = {}
        self.deaths: list[int] = []
        """Exit codes of workers that were started again."""

    def start(self, name: str, *program: str, instance: bool = True) -> Worker:
        """A worker of this name; with ``instance`` it keeps its place in the group when killed."""
        if name not in self.workers:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            self.workers[name] = Worker(
                *(folder, self.bootstrap, self.prefix),
                instance=name * instance,
                spec=SPEC,
                stall_s=20.0,
            )
        self.workers[name].start(*program)
        return self.workers[name]

    def retire(self, name: str) -> None:
        """Stop a worker in order, for good."""
        assert self.workers.pop(name).stop() == 0

    def heal(self) -> None:
        """Start again what has ended."""
        for worker in self.workers.values():
            code = worker.ended()
            if code is not None:
                assert code in (EXIT_CODE, -9), worker.log_file.read_text()[-4000:]
                self.deaths.append(code)
                worker.start()

    def joined(self, number: int) -> bool:
        """Whether so many feedback records have a receipt."""
        return len(self.bench.receipts()) >= number

    def await_joined(self, number: int, timeout_s: float = 40.0) -> None:
        worker = next(iter(self.workers.values()))
        self.bench.await_true(lambda: self.joined(number), worker, timeout_s)

    def await_log(self, name: str, text: str) -> None:
        worker = self.workers[name]
        self.bench.await_true(lambda: text in worker.log_file.read_text(), worker)

    def end(self, timeout_s: float = 60.0) -> Account:
        """Let everything be decided, recount, and fail with what differs."""
        (self.folder / "spec.toml").write_text(SPEC)
        rules = spec.load(self.folder / "spec.toml")
        account = await_good(self.bench.log, self.prefix, rules, self.heal, timeout_s)
        logs = "\n".join(w.log_file.read_text()[-2000:] for w in self.workers.values())
        assert account.good, (account, logs)
        audit = self.audit()
        assert audit.returncode == 0, audit.stdout
        return account

    def audit(self) -> subprocess.CompletedProcess[str]:
        """``tailrace audit`` as people run it."""
        command = [sys.executable, "-m", "tailrace.cli", "audit"]
        command += ["--kafka", self.bootstrap, "--prefix", self.prefix, "--decide-within", "60"]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.bench.close()
