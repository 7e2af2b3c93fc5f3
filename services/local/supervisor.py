"""Keeps programs running: starts them, starts them again with back-off, ends them in order.

It is the parent of every program and a child subreaper, so every descendant of a program, also one
that left its session and lost its parent, hangs below this process and can be found.

Flow: :meth:`Supervisor.add` starts a program; :meth:`Supervisor.tick` reaps what ended, kills
strays (descendants whose program is gone), starts what is due; :meth:`Supervisor.end` ends all.
Each change of state goes to ``report``.

Invariants. A program is started again only when no stray of its last run lives (it may hold a port
or a file). After :meth:`end` no descendant lives. For the guardian's one thread.

Called by :mod:`services.local.guardian`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import os
import signal
import subprocess
import time

from services.local import processes
from services.local.programs import Program, Report

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
SETTLED_S = 60.0
STRAY_GRACE_S = 3.0
SETTINGS_EXIT = 2


def backoff_s(failures: int) -> float:
    """Delay before the next start after so many ends in a row: 0.5 s, doubled up to 30 s.

    >>> [backoff_s(n) for n in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - 1, 30)))


class _Child:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.due_s: float | None = None
        self.failures = 0
        self.restarts = 0


class Supervisor:
    """The programs of one run. See the module's text."""

    def __init__(
        self, report: Callable[[Report], None], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock_s = clock_s
        self._children: dict[str, _Child] = {}
        self._strays: dict[int, float] = {}
        self._hurrying = False

    def add(self, program: Program) -> None:
        """Start a program. One of this name must not be there."""
        assert program.name not in self._children, program.name
        child = self._children[program.name] = _Child(program)
        self._start(child)

    def tick(self) -> None:
        """Do what is due now."""
        self._reap()
        self._end_strays()
        now_s = self._clock_s()
        for child in self._children.values():
            if child.due_s is not None and child.due_s <= now_s and not self._strays:
                child.restarts += 1
                self._start(child)

    def end(self) -> None:
        """End every program, stage by stage, then whatever still descends from this process."""
        for stage in sorted({child.program.stage for child in self._children.values()}):
            self._end(c for c in self._children.values() if c.program.stage == stage)
        while left := processes.descendants(os.getpid()):
            for pid in left:
                processes.send(pid, signal.SIGKILL)
            time.sleep(0.02)
            self._reap()
        self._children.clear()

    def hurry(self) -> None:
        """Let :meth:`end` kill at once. From a signal handler."""
        self._hurrying = True

    def _start(self, child: _Child) -> None:
        program = child.program
        child.due_s = None
        child.started_s = self._clock_s()

        def before_exec() -> None:
            # Only if the guardian itself is killed: then nobody else is left to tell it.
            processes.die_with_parent(signal.SIGTERM)
            if program.cores is not None:
                os.sched_setaffinity(0, program.cores)
            if program.nice:
                os.nice(program.nice)

        try:
            with open(program.log, "ab") as log:
                child.process = subprocess.Popen(
                    program.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | program.environment,
                    preexec_fn=before_exec,
                    start_new_session=True,
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._ended(child, 127, f"cannot be started: {error}")
            return
        self._say(child, Report(name=program.name, state="running", pid=child.process.pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._strays.pop(pid, None)
            for child in self._children.values():
                if child.process is not None and child.process.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    child.process.returncode = code  # reaped here, so Popen must not wait for it
                    child.process = None
                    self._ended(child, code, _how(code))

    def _ended(self, child: _Child, code: int, how: str) -> None:
        program = child.program
        if self._clock_s() - child.started_s >= SETTLED_S:
            child.failures = 0
        child.failures += 1
        if code == SETTINGS_EXIT:
            report = Report(name=program.name, state="refused", code=code, text=how)
        elif not program.restart:
            report = Report(name=program.name, state="ended", code=code, text=how)
        else:
            delay_s = backoff_s(child.failures)
            child.due_s = self._clock_s() + delay_s
            text = f"{how}; starting it again in {delay_s:g} s"
            report = Report(
                name=program.name, state="waiting", code=code, delay_s=delay_s, text=text
            )
        self._say(child, report)

    def _say(self, child: _Child, report: Report) -> None:
        self._report(
            Report(
                name=report.name,
                state=report.state,
                pid=report.pid,
                code=report.code,
                restarts=child.restarts,
                delay_s=report.delay_s,
                text=report.text,
            )
        )

    def _end_strays(self) -> None:
        known = {c.process.pid for c in self._children.values() if c.process is not None}
        now_s = self._clock_s()
        strays = [pid for pid in processes.children(os.getpid()) if pid not in known]
        for pid in strays:
            if pid not in self._strays:
                processes.send(pid, signal.SIGTERM)
            elif self._hurrying or now_s - self._strays[pid] >= STRAY_GRACE_S:
                processes.send(pid, signal.SIGKILL)
        self._strays = {pid: self._strays.get(pid, now_s) for pid in strays}

    def _end(self, children: Iterable[_Child]) -> None:
        ending = list(children)
        start_s = time.monotonic()
        for child in ending:
            child.due_s = None
            if child.process is not None:
                processes.send(child.process.pid, signal.SIGTERM)
        while living := [child for child in ending if child.process is not None]:
            for child in living:
                self._await(child, start_s)
            time.sleep(0.02)
        self._end_strays()
        while self._strays:
            time.sleep(0.02)
            self._reap()
            self._end_strays()

    def _await(self, child: _Child, start_s: float) -> None:
        process = child.process
        assert process is not None
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid != 0:
            process.returncode = os.waitstatus_to_exitcode(status)
            child.process = None
            how = _how(process.returncode)
            name = child.program.name
            self._say(child, Report(name=name, state="ended", code=process.returncode, text=how))
        elif self._hurrying or time.monotonic() - start_s > child.program.grace_s:
            for pid in [process.pid, *processes.descendants(process.pid)]:
                processes.send(pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
