"""Python functions with the signature of TRL's reward functions, each in a process of its own.

In: items. Out: verdicts. A call that takes longer than ``timeout_s`` is killed with its process,
and the next one has a new process. A batch that fails is repeated answer by answer, so that one
answer costs none but itself its grade. Made and closed by :mod:`.app`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
import queue
import threading
import time
from typing import Any

from services.graders import metrics, spans
from services.graders.cache import Cache, key_of
from services.graders.item import Item, Verdict
from services.graders.spec import Function
from tailrace.functions.calls import Child, Failed
from tailrace.traces import Traces

_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Between starts of a process that does not get as far as its first call."""
_log = logging.getLogger(__name__)


class Functions:
    """A worker with one function: takes items, answers each with a verdict, on its own thread."""

    def __init__(
        self,
        name: str,
        function: Function,
        code: bytes,
        cache: Cache,
        answer: Callable[[Item, Verdict], None],
        crashed: Callable[[BaseException], None],
        traces: Traces | None = None,
    ) -> None:
        """``code``: the bytes of the function's file. ``traces``: None for none."""
        self.room = function.batch * 4
        """Items that it may be given before it has answered any."""
        self._name, self._function, self._mark = name, function, function.hash(code)
        self._cache, self._answer, self._crashed = cache, answer, crashed
        self._traces = traces
        self._child = Child(function.file, function.function, code)
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
                    verdict = Verdict(said, traceparent=verdict.traceparent)
            self._answer(item, verdict)
        if verdicts[0].reason == "start":
            self._closing.wait(_PAUSES_S[min(self._fell, len(_PAUSES_S) - 1)])
            self._fell += 1
        else:
            self._fell = 0

    def _call(self, items: Sequence[Item]) -> list[Verdict]:
        with spans.call(self._traces, self._name, self._function.metric, items) as made:
            began = time.monotonic()
            try:
                values = self._child.call(request(items), self._function.timeout_s)
            except Failed as error:
                made.error = error.reason
                raise
            finally:
                metrics.SECONDS.labels(self._name).observe(time.monotonic() - began)
        return [
            Verdict(reason=value)
            if isinstance(value, str)
            else Verdict(value, traceparent=made.traceparent)
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
