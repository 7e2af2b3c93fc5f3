"""A Python verifier in a process of its own: the parent's side of :mod:`.child`.

A request goes down as a line of JSON, its answer comes up as one. A call that takes too long is
killed with its process; the next call has a new one. Made by :mod:`.scoring`.
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
import time
from typing import Any

from tailrace.tasks.verifier import Verifier

_SCRIPT = Path(__file__).with_name("child.py")
_START_S = 120.0
"""How long the user's file may take to load."""


class Failed(Exception):
    """``reason`` is a fixed word: ``start``, ``timeout``, ``exited``, ``raised``, ``wrong_length``,
    ``closed``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Function:
    """The process with the function. For one thread; :meth:`kill` may come from any.

    The kernel ends the process with the thread that made the first call.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._command = [
            *(sys.executable, str(_SCRIPT), verifier.file, verifier.function, str(os.getpid()))
        ]
        self._first = json.dumps({"code": verifier.code.decode("latin-1")}).encode() + b"\n"
        self._timeout_s = verifier.timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._mutex = threading.Lock()

    def call(self, request: dict[str, Any]) -> list[Any]:
        """For each answer a float, None, or a word that says why there is none. Raises Failed."""
        if self._process is None:
            self._start()
        line = json.dumps(request).encode() + b"\n"
        answer = self._exchange(line, self._timeout_s)
        if "values" not in answer:
            raise Failed(answer["reason"], answer["detail"])
        values: list[Any] = answer["values"]
        return values

    def kill(self) -> None:
        """End the process, and whatever it started, for good; a call that runs fails."""
        with self._mutex:
            self._closed = True
            if self._process is not None:
                _kill(self._process)

    def close(self) -> None:
        """End it and let go of it."""
        self.kill()
        if self._process is not None:
            self._drop()

    def _start(self) -> None:
        with self._mutex:
            if self._closed:
                raise Failed("closed")
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            self._exchange(self._first, _START_S)
        except Failed as error:
            raise Failed("start", str(error)) from None

    def _exchange(self, line: bytes, timeout_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = _line(process.stdout.fileno(), timeout_s)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        except Failed:
            self._drop()
            raise
        if not answer.endswith(b"\n"):
            raise Failed("exited", f"with {self._drop()}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _drop(self) -> int:
        with self._mutex:
            process, self._process = self._process, None
        assert process is not None and process.stdin is not None and process.stdout is not None
        _kill(process)
        code = process.wait()
        process.stdout.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass  # what it had not read
        return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _line(pipe: int, timeout_s: float) -> bytes:
    """A line, or what came of it until the process ended. Raises Failed(timeout)."""
    end_s, found = time.monotonic() + timeout_s, b""
    while not found.endswith(b"\n"):
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
            raise Failed("timeout", f"after {timeout_s:g} s")
        part = os.read(pipe, 1 << 16)
        if not part:
            break
        found += part
    return found
