"""Python functions with the signature of TRL's reward functions, each in a process of its own.

In: items. Out: verdicts. A call that takes longer than ``timeout_s`` is killed with its process,
and the next one has a new process. A batch that fails is repeated answer by answer, so that one
answer costs none but itself its grade. Made and closed by :mod:`.app`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
import logging
import os
from pathlib import Path
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from services.graders import metrics
from services.graders.cache import Cache, key_of
from services.graders.item import Item, Verdict
from services.graders.spec import Function

SCRIPT = Path(__file__).with_name("child.py")
START_S = 120.0
"""How long the user's file may take to load."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Between starts of a process that does not get as far as its first call."""
_log = logging.getLogger(__name__)


class Failed(Exception):
    """``reason`` is a fixed word for the metrics."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Child:
    """The process with the function. For one thread; :meth:`kill` may come from any."""

    def __init__(self, file: str, function: str) -> None:
        self._command = [sys.executable, str(SCRIPT), file, function, str(os.getpid())]
        self._process: subprocess.Popen[str] | None = None
        self._ended = False
        self._mutex = threading.Lock()

    def call(self, request: dict[str, Any], timeout_s: float) -> list[Any]:
        """One value for each answer. Raises Failed."""
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
            if self._exchange(None, START_S) is None:
                raise Failed("start", f"ended with {self._drop()}")
        except Failed as error:
            raise Failed("start", str(error)) from None

    def _exchange(self, line: str | None, timeout_s: float) -> dict[str, Any] | None:
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
            if line is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            answer = ""
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            self._drop()
            raise Failed("timeout", f"after {timeout_s:g} s")
        if not answer.endswith("\n"):
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


class Functions:
    """A worker with one function: takes items, answers each with a verdict, on its own thread."""

    def __init__(
        self,
        name: str,
        function: Function,
        mark: str,
        cache: Cache,
        answer: Callable[[Item, Verdict], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self.room = function.batch * 4
        """Items that it may be given before it has answered any."""
        self._name, self._function, self._mark = name, function, mark
        self._cache, self._answer, self._crashed = cache, answer, crashed
        self._child = Child(function.file, function.function)
        self._given: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._fell = 0
        self._thread = threading.Thread(target=self._run, name=f"function-{name}", daemon=True)
        self._thread.start()

    def give(self, item: Item) -> None:
        """Queue one item."""
        self._given.put(item)

    def close(self) -> None:
        """End at once; items without an answer are left so."""
        self._closing.set()
        self._given.put(None)
        self._child.kill(for_good=True)
        self._thread.join()
        self._cache.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._grade(self._batch())
        except BaseException as error:  # the thread has nobody above it
            self._crashed(error)
        finally:
            self._child.close()

    def _batch(self) -> list[Item]:
        items = [self._given.get()]
        while len(items) < self._function.batch and not self._given.empty():
            items.append(self._given.get())
        return [item for item in items if item is not None]

    def _grade(self, items: Sequence[Item]) -> None:
        unknown = []
        for item in items:
            number = self._cache.get(self._key(item))
            if number is None:
                unknown.append(item)
            else:
                metrics.CACHED.labels(self._name).inc()
                self._answer(item, Verdict(number))
        if not unknown or self._closing.is_set():
            return
        try:
            verdicts = self._call(unknown)
        except Failed as error:
            if len(unknown) > 1 and error.reason != "start":
                for item in unknown:
                    self._grade([item])
                return
            _log.warning("function failed grader=%s reason=%s", self._name, error)
            verdicts = [Verdict(reason=error.reason)] * len(unknown)
        if self._closing.is_set():
            return  # killed by us: a verdict of that says nothing
        for item, verdict in zip(unknown, verdicts, strict=True):
            if verdict.number is not None:
                # An output that lies on the log twice may be twice in one batch.
                said = self._cache.get(self._key(item))
                if said is None:
                    self._cache.put(self._key(item), verdict.number)
                else:
                    verdict = Verdict(said)
            self._answer(item, verdict)
        if verdicts[0].reason == "start":
            self._closing.wait(_PAUSES_S[min(self._fell, len(_PAUSES_S) - 1)])
            self._fell += 1
        else:
            self._fell = 0

    def _call(self, items: Sequence[Item]) -> list[Verdict]:
        began = time.monotonic()
        try:
            values = self._child.call(request(items), self._function.timeout_s)
        finally:
            metrics.SECONDS.labels(self._name).observe(time.monotonic() - began)
        return [
            Verdict(reason=value["reason"]) if isinstance(value, dict) else Verdict(value)
            for value in values
        ]

    def _key(self, item: Item) -> bytes:
        # By id, not content: a function may well say another thing of the same words next time.
        return key_of(self._mark, item.interaction_id, str(item.choice))


def request(items: Sequence[Item]) -> dict[str, Any]:
    """The keyword arguments of one call.

    As TRL has them: an answer to messages is a list of one message, to a plain prompt a string; a
    column that only some answers have is None for the others.
    """
    names = dict.fromkeys(name for item in items for name in item.columns)
    return {
        "prompts": [item.prompt for item in items],
        "completions": [
            item.answer if isinstance(item.prompt, str) else [item.completion] for item in items
        ],
        "completion_ids": [item.completion_ids for item in items],
        "columns": {name: [item.columns.get(name) for item in items] for name in names},
    }
