"""The guardian: the process between the runner and everything that it runs.

``python -m services.local.guardian`` reads Programs (JSON lines) from standard input and writes
Reports to standard output. When its input closes, because the runner asked for the end, was killed
with SIGKILL or crashed, it ends every descendant in order and then itself; on SIGUSR1 it kills
those that are still ending. It lives in a session of its own, so Ctrl-C and a closed terminal reach
the runner only.

Why a process of its own: a runner that is killed cannot clean up, and PR_SET_PDEATHSIG reaches
direct children only, not what they started (vLLM's engine core).

:class:`Guardian` is the runner's end of the pipes. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import threading
import time

import msgspec

from services.local import processes
from services.local.programs import Program, Report
from services.local.supervisor import Supervisor

_TICK_S = 1.0
_POLL_S = 0.05
_HURRY = signal.SIGUSR1
"""From the runner: kill instead of waiting for who was told to end."""
_PROGRAM = msgspec.json.Decoder(Program)
_REPORT = msgspec.json.Decoder(Report)


class Guardian:
    """The runner's handle on its guardian process.

    ``on_report`` is called on a thread of this class; ``on_lost`` when the guardian ended without
    having been asked to. ``keep_open``: file descriptors (the lock's) that it holds as long as it
    lives.
    """

    def __init__(
        self,
        *,
        log: Path,
        mark: str,
        cwd: Path,
        on_report: Callable[[Report], None],
        on_lost: Callable[[], None],
        keep_open: Sequence[int] = (),
    ) -> None:
        # TAILRACE_* variables are in the settings file by now; children must read that alone.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.local.guardian"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env=environment | {processes.MARK: mark, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                pass_fds=keep_open,
            )
        self.pid = self._process.pid
        self._on_report = on_report
        self._on_lost = on_lost
        self._ending = False
        self._reader = threading.Thread(target=self._read, name="guardian", daemon=True)
        self._reader.start()

    def add(self, program: Program) -> None:
        """Start this program and keep it running."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(program) + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it is gone or was told to end; on_lost says the first

    def end(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End everything and wait for it. Once ``hurry()`` is true, kill what still runs. Again:
        nothing happens."""
        self._ending = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        while self._process.poll() is None and not hurry():
            time.sleep(_POLL_S)
        self._process.send_signal(_HURRY)  # to one that ended, nothing is sent
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._on_report(_REPORT.decode(line))
        if not self._ending:
            self._on_lost()


def main() -> None:
    """The guardian process."""
    processes.adopt_orphans()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    told_to_end = False

    def on_signal(number: int, _: object) -> None:
        nonlocal told_to_end
        told_to_end = told_to_end or number == signal.SIGTERM

    # Handlers, not SIG_IGN: what is ignored stays ignored in every child.
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, on_signal)

    supervisor = Supervisor(_write)
    signal.signal(_HURRY, lambda *_: supervisor.hurry())
    buffer = b""
    try:
        while not told_to_end:
            ready, _, _ = select.select([0, wake_read], [], [], _TICK_S)
            if wake_read in ready:
                os.read(wake_read, 4096)
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    supervisor.add(_PROGRAM.decode(line))
            supervisor.tick()
    finally:
        supervisor.end()


def _write(report: Report) -> None:
    line = msgspec.json.encode(report) + b"\n"
    try:
        while line:
            line = line[os.write(1, line) :]
    except BrokenPipeError:
        pass  # the runner is gone; what is left to do does not need it


if __name__ == "__main__":
    main()
