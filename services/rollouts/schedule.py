"""Which task a group is about: by its number alone, so that a restart goes on as if nothing was.

Every task of every benchmark comes once before any comes again, in another order each time. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from tailrace.errors import SettingsError
from tailrace.tasks.benchmark import Benchmark, Task


class Item(msgspec.Struct, frozen=True):
    """A task and the benchmark that it is of."""

    benchmark: Benchmark
    task: Task


class Schedule:
    """The train halves of some benchmarks. Raises SettingsError where one has none."""

    def __init__(self, benchmarks: Sequence[Benchmark], *, seed: int) -> None:
        self._items = [Item(one, task) for one in benchmarks for task in one.split("train")]
        for one in benchmarks:
            if not one.split("train"):
                raise SettingsError(f"rollouts.tasks: {one.name} has no task to train on")
        self._seed = seed
        self._round: tuple[int, list[Item]] | None = None

    def item(self, number: int) -> Item:
        """What group ``number`` is about."""
        turn, at = divmod(number, len(self._items))
        if self._round is None or self._round[0] != turn:
            items = list(self._items)
            Random(f"{self._seed}/{turn}").shuffle(items)
            self._round = turn, items
        return self._round[1][at]
