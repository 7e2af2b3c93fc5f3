"""What stands still is found; what only waits is not."""

from __future__ import annotations

import pytest

from services.rewards.stall import Stall, Stalled


def test_the_same_place_for_too_long() -> None:
    now = [0.0]
    stall = Stall(10, lambda: now[0])
    for now[0] in (0, 4, 8, 10):
        stall.see("a", 1)
    with pytest.raises(Stalled, match="a has stayed at 1 for 11 s"):
        now[0] = 11
        stall.see("a", 1)


def test_what_moves_or_has_nothing_to_do_or_was_not_looked_at() -> None:
    now = [0.0]
    stall = Stall(10, lambda: now[0])
    for step in range(40):
        now[0] = step * 4
        stall.see("moves", step // 2)
        stall.see("rests", None if step % 2 else 1)
        if step % 3 == 0:
            stall.see("seldom", 1)
