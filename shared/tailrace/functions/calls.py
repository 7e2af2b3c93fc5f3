"""Calls of a user's function in a process of its own: the parent's side of :mod:`.child`.

A request goes down as a line of JSON and its answer comes up as one. A call that takes too long is
killed with its process; the next call has a new one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import threading
from typing import Any

SCRIPT = Path(__file__).with_name("child.py")
START_S = 120.0
"""How long the user's file may take to load."""


class Failed(Exception):
    """``reason`` is a fixed word: ``start``, ``timeout``, ``exited``, ``raised``, ``wrong_length``,
    ``too_deep``, ``closed``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Child:
    """The process with the function. For one thread; :meth:`kill` may come from any.

    The kernel ends the process with the thread that made the first call.
    """

    def __init__(self, file: str, function: str, code: bytes) -> None:
        """``code``: the bytes of ``file``, which run whatever becomes of it."""
        self._command = [sys.executable, str(SCRIPT), file, function, str(os.getpid())]
        self._first = json.dumps({"code": code.decode("latin-1")})
        self._process: subprocess.Popen[str] | None = None
        self._ended = False
        self._mutex = threading.Lock()

    def call(self, request: dict[str, Any], timeout_s: float) -> list[Any]:
        """For each answer a float, None, or a word that says why there is none. Raises Failed."""
        try:
            line = json.dumps(request)
        except RecursionError:
            raise Failed("too_deep") from None
        if self._process is None:
            self._start()
        answer = self._exchange(line, timeout_s)
        if answer is None:
            raise Failed("exited", f"with {self._drop()}")
        if "values" not in answer:
            raise Failed(answer["reason"], answer["detail"])
        values: list[Any] = answer["values"]
        return values

    def close(self) -> None:
        """End the process and let go of it."""
        self.kill(for_good=True)
        if self._process is not None:
            self._drop()

    def kill(self, *, for_good: bool = False) -> None:
        """End the process and what it started."""
        with self._mutex:
            self._ended = self._ended or for_good
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> None:
        with self._mutex:
            if self._ended:
                raise Failed("closed")
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        try:
            if self._exchange(self._first, START_S) is None:
                raise Failed("start", f"ended with {self._drop()}")
        except Failed as error:
            raise Failed("start", str(error)) from None

    def _exchange(self, line: str, timeout_s: float) -> dict[str, Any] | None:
        """Send a line and read one; None when the process ended. Raises Failed(timeout)."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = _line(process.stdout.fileno(), late)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            self._drop()
            raise Failed("timeout", f"after {timeout_s:g} s")
        if not answer.endswith(b"\n"):
            return None
        found: dict[str, Any] = json.loads(answer)
        return found

    def _drop(self) -> int:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        self.kill()
        code = process.wait()
        with self._mutex:
            self._process = None
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it had not read
        return code


def _line(pipe: int, late: threading.Event) -> bytes:
    """A line, or what came of it until the process ended or it was too late.

    Not ``readline``: a process that the child left behind may hold the pipe open for ever.
    """
    found, ready = b"", select.poll()
    ready.register(pipe, select.POLLIN)
    while not found.endswith(b"\n") and not late.is_set():
        if ready.poll(50):
            part = os.read(pipe, 1 << 16)
            if not part:
                break
            found += part
    return found
