"""The pace: ours are as many as keep tokens in time, and fewer when live traffic comes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.rollouts.pace import Pace
from services.rollouts.share import SETTLED_MS, Load
from tests.rollouts.scene import NOW_MS, a_benchmark, a_desk, an_answer


class Engine:
    """Every request makes a token in each step, and a step takes longer the more there are."""

    def __init__(self, first_ms: float, more_ms: float) -> None:
        self.first_ms, self.more_ms = first_ms, more_ms
        self.tokens, self.tokens_s = 0, 0.0

    def token_ms(self, requests: int) -> float:
        return self.first_ms + self.more_ms * requests

    def run(self, requests: int) -> Load:
        """A reading after some steps."""
        self.tokens += 10 * requests
        self.tokens_s += 10 * requests * self.token_ms(requests) / 1000
        return Load(requests, 0, self.tokens, self.tokens_s)


def test_without_a_limit_there_is_none() -> None:
    pace = Pace(None, 8)
    for tokens in range(4):
        pace.see(Load(1, 0, tokens, tokens * 1000.0), 1, tokens * SETTLED_MS)
    assert pace.bound == 8


@given(
    first_ms=st.floats(1, 50),
    more_ms=st.floats(1, 20),
    bears=st.integers(3, 20),
    live=st.integers(0, 8),
)
def test_it_finds_what_the_engine_bears_and_keeps_to_it(
    first_ms: float, more_ms: float, bears: int, live: int
) -> None:
    """Over by one at most, and that only to see it; never far below for long."""
    engine = Engine(first_ms, more_ms)
    limit_ms = engine.token_ms(bears) + more_ms / 2
    pace = Pace(limit_ms, 64)
    seen = []
    for turn in range(120):
        ours = pace.bound
        pace.see(engine.run(live + ours), ours, NOW_MS + turn * SETTLED_MS)
        if turn >= 60:
            seen.append(live + ours)
    assert max(seen) <= max(live + 1, bears + 1)
    if live < bears:
        assert max(seen) >= bears
        assert min(seen) - live >= int((bears + 1 - live) * 0.7)
    else:
        # None of ours, but for a look each time it has been none for a while.
        assert seen.count(live) >= len(seen) // 2


def test_live_traffic_that_comes_makes_ours_fewer_at_once() -> None:
    engine = Engine(10, 10)
    pace, now_ms = Pace(105, 64), NOW_MS
    for _ in range(30):
        now_ms += SETTLED_MS
        pace.see(engine.run(pace.bound), pace.bound, now_ms)
    before = pace.bound
    assert before >= 6
    pace.see(engine.run(before + 8), before, now_ms + 250)
    assert pace.bound == int(before * 0.7)
    # Those that are over run on; until they have ended, nothing is taken away for them again.
    pace.see(engine.run(before + 8), before, now_ms + 500)
    assert pace.bound == int(before * 0.7)
    pace.see(engine.run(8 + pace.bound), pace.bound, now_ms + 750)
    assert pace.bound == int(int(before * 0.7) * 0.7)


def test_a_pause_or_another_vllm_says_nothing() -> None:
    pace = Pace(100, 64)
    pace.see(Load(1, 0, 1000, 10.0), 1, NOW_MS)
    pace.see(Load(1, 0, 1000, 10.0), 1, NOW_MS + SETTLED_MS)  # a swap: no token came
    pace.see(Load(1, 0, 5, 10.0), 1, NOW_MS + 2 * SETTLED_MS)  # it started again
    assert pace.bound == 1
    pace.see(Load(1, 0, 15, 10.1), 1, NOW_MS + 3 * SETTLED_MS)
    assert pace.bound == 2


def test_the_desk_keeps_to_the_pace_too(tmp_path: Path) -> None:
    desk = a_desk(a_benchmark(tmp_path / "sums"), slots=64, token_ms=100.0)
    desk.read("e", Load(0, 0), NOW_MS)
    (ask,) = desk.asks(NOW_MS)
    later = NOW_MS + SETTLED_MS
    desk.read("e", Load(1, 0, 10, 0.5), later)
    assert desk.allowed("e", later) == 2
    desk.answered(ask, an_answer())
    assert len(desk.asks(later)) == 2
    desk.read("e", Load(2, 0, 20, 5.0), later + 10)
    assert desk.allowed("e", later + 10) == 1
