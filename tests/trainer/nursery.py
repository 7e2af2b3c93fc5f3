"""Real trainer processes, one after the other or at once, that die of SIGKILL where they are told.

``python -m tests.trainer.nursery MODEL`` imports what is heavy, loads the model once and then forks
a child for each order, so that each starts at once. Orders are lines on its standard input,
``start SETTINGS LOG [POINT TIMES SIGNAL]`` and ``wait PID SECONDS``; each is answered by one line,
the child's pid or its wait status. A child runs the trainer's own ``main`` and sends itself SIGNAL
when it comes to POINT for the TIMES-th time:

    consume     offered     a record was read, and decided or taken as an answer
    decide      accounted   every decision since the last version is in its account
    step        taken  stepped
    publish     encoded  laid (its bytes)  begun (the transaction)  uncommitted  committed
                published
    checkpoint  checkpoint_begun  checkpoint_written  checkpoint_visible

:class:`Nursery` is the other end.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import time
from typing import Any

from tests.trainer.traffic import MODEL

POINTS = (
    "offered",
    "accounted",
    "taken",
    "stepped",
    "encoded",
    "laid",
    "begun",
    "uncommitted",
    "committed",
    "published",
    "checkpoint_begun",
    "checkpoint_written",
    "checkpoint_visible",
)
HORIZON_S = 1e9
"""The trajectories' times are fixed, the broker's clock is not."""
_PR_SET_PDEATHSIG = 1
_ANSWER_S = 120.0
_TRAINER = {
    "batch_answers": 8,
    "batch_wait_s": 1.0,
    "min_answers": 4,
    "micro_answers": 4,
    "lr": 1e-3,
    "account_s": 1.0,
    "checkpoint_versions": 2,
    "horizon_s": HORIZON_S,
    "max_age_versions": 1000,
}


def settings_file(
    path: Path, *, kafka: str, prefix: str, model_dir: Path, state_dir: Path, **trainer: Any
) -> Path:
    """Settings of a trainer of the tests' traffic, written there."""
    common = {"kafka": kafka, "prefix": prefix, "model": MODEL, "state_dir": str(state_dir)}
    values = _TRAINER | {"model_dir": str(model_dir)} | trainer
    lines = [f"{name} = {json.dumps(value)}" for name, value in common.items()]
    lines += ["[trainer]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


class Life:
    """One trainer process."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stopped(self, timeout_s: float = _ANSWER_S) -> None:
        """Until a SIGSTOP holds it. Raises TimeoutError."""
        until = time.monotonic() + timeout_s
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > until:
                raise TimeoutError(f"not stopped: {self.said()[-3000:]}")
            os.sched_yield()

    def said(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text()


class Nursery:
    """Starts trainers of one model folder. A context manager; its children end with it."""

    def __init__(self, model: Path, folder: Path) -> None:
        self._folder, self._started = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, "-m", "tests.trainer.nursery", str(model)]
        self._errors = folder / "nursery.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def start(
        self, settings: Path, point: str = "", times: int = 1, number: int = signal.SIGKILL
    ) -> Life:
        """A trainer with this settings file; with a ``point``, a signal meets it there."""
        self._started += 1
        log = self._folder / f"life{self._started}.log"
        log.touch()  # it may be read before its writer has begun
        order = f"start {settings} {log}" + (f" {point} {times} {int(number)}" if point else "")
        return Life(self._ask(order), log)

    def ended(self, life: Life, timeout_s: float = _ANSWER_S) -> int:
        """Wait for it: its exit code, or minus the signal that ended it. Raises TimeoutError: it
        lives, and can be waited for again once it was killed."""
        return os.waitstatus_to_exitcode(self._ask(f"wait {life.pid} {timeout_s}"))

    def close(self) -> None:
        """End it, and its children with it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_ANSWER_S)
        self._process.stdout.close()

    def _ask(self, order: str) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{order}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._errors.read_text()[-3000:]
        if answer == b"alive\n":
            raise TimeoutError(order)
        return int(answer)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def live(settings: str, point: str, times: int, number: int) -> int:
    """One trainer, which gets a signal when it comes to ``point`` for the nth time."""
    from services.trainer.__main__ import main
    from services.trainer.intake import Intake
    from tailrace.log.kafka_producer import KafkaProducer
    from tailrace.weights.publisher import Publisher

    left = times

    def crash(at: str) -> None:
        nonlocal left
        left -= at == point
        if at == point and left == 0:
            os.kill(os.getpid(), number)

    def after(owner: Any, name: str, at: str) -> None:
        setattr(owner, name, _around(getattr(owner, name), None, lambda: crash(at)))

    after(Intake, "offer", "offered")
    after(Intake, "account", "accounted")
    after(Publisher, "_lay", "laid")
    after(KafkaProducer, "begin", "begun")
    commit = KafkaProducer.commit
    KafkaProducer.commit = _around(  # type: ignore[method-assign]
        commit, lambda: crash("uncommitted"), lambda: crash("committed")
    )
    return main(["--settings", settings], crash)


def _around(
    function: Callable[..., Any], before: Callable[[], None] | None, after: Callable[[], None]
) -> Callable[..., Any]:
    def around(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before()
        found = function(*arguments, **named)
        after()
        return found

    return around


def _fork(settings: str, log: str, point: str = "", times: str = "1", number: str = "9") -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = live(settings, point, int(times), int(number))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, timeout_s: float) -> str:
    """Its wait status, or ``alive``."""
    descriptor = os.pidfd_open(pid)
    try:
        if not select.select([descriptor], [], [], timeout_s)[0]:
            return "alive"
    finally:
        os.close(descriptor)
    return str(os.waitpid(pid, 0)[1])


def serve(model: Path) -> None:
    """Answer orders until there are no more."""
    from services.trainer import trainer  # noqa: F401  # a child would take as long again
    from services.trainer.learner import deterministic
    from services.trainer.policy import Policy
    from tailrace.log import kafka  # noqa: F401
    from tailrace.weights import codec

    deterministic(1)  # threads would not survive the fork
    tensors = Policy(model).published()
    codec.encode_delta(tensors, tensors)  # its kernels are loaded with the first use
    for line in sys.stdin:
        order, *rest = line.split()
        answer = _fork(*rest) if order == "start" else _wait(int(rest[0]), float(rest[1]))
        print(answer, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
