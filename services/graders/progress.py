"""How far the outputs of one partition are graded. Pure.

Answers are done in any order; what may be committed is the offset below which all are done.
"""

from __future__ import annotations

from collections import OrderedDict


class Progress:
    """The answers of one partition that were read and are not done, by offset."""

    def __init__(self, position: int) -> None:
        self.read_to = position
        """The offset that is read next."""
        self._open: OrderedDict[int, int] = OrderedDict()
        self._newest_ms = 0

    def begin(self, offset: int, time_ms: int) -> None:
        """An answer was read. Offsets come in order."""
        assert offset >= self.read_to
        self._open[offset] = self._newest_ms = time_ms
        self.read_to = offset + 1

    def done(self, offset: int) -> None:
        """Nothing more will come of an answer."""
        del self._open[offset]

    def passed(self, position: int) -> None:
        """The reader is past offsets that hold no record."""
        self.read_to = max(self.read_to, position)

    @property
    def position(self) -> int:
        """Everything below is done: what may be committed."""
        return next(iter(self._open), self.read_to)

    @property
    def time_ms(self) -> int:
        """Append time of the oldest answer that is not done, or of the newest where all are."""
        return next(iter(self._open.values()), self._newest_ms)
