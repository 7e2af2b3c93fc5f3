"""What a grader and its worker say to each other, across two threads.

The grader (:mod:`.grader`) gives items; the worker (:mod:`.functions`, :mod:`.judge`) puts a
verdict on each, in any order.
"""

from __future__ import annotations

import queue
from typing import Protocol

from services.graders.item import Item, Verdict


class Worker(Protocol):
    """What grades. It answers through the :class:`Answers` that it was made with."""

    room: int

    def give(self, item: Item) -> None:
        """Queue one item."""

    def close(self) -> None:
        """End at once; items without an answer are left so."""


class Answers:
    """From the worker's thread to the grader's."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Item, Verdict] | BaseException] = queue.SimpleQueue()

    def put(self, item: Item, verdict: Verdict) -> None:
        """The worker's word on an item."""
        self._queue.put((item, verdict))

    def crash(self, error: BaseException) -> None:
        """The worker cannot go on."""
        self._queue.put(error)

    def get(self, timeout_s: float) -> tuple[Item, Verdict] | None:
        """The next word, waited for up to ``timeout_s``. Raises what the worker raised."""
        try:
            found = self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found
