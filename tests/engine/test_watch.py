"""A vLLM that is slow is not one that is down."""

from __future__ import annotations

import pytest

from services.engine.swap import Doubt, Swap
from services.engine.watch import Watch
from tests.engine.fakes import FakeVllm
from tests.engine.room import Clock


def watch(vllm: FakeVllm, clock: Clock) -> Watch:
    return Watch(vllm, Swap(vllm, clock=clock, wait=lambda s: None), clock)


def test_one_in_a_long_step_is_left_alone_while_it_works() -> None:
    vllm, clock = FakeVllm(), Clock()
    watched = watch(vllm, clock)
    vllm.hung, vllm.pace_tokens = True, 7.0
    for _ in range(20):
        assert watched.holds(0)
        clock.now += 10.0
    vllm.pace_tokens = 0.0
    for _ in range(2):
        assert watched.holds(0)
        clock.now += 10.0
    with pytest.raises(Doubt):
        watched.holds(0)


@pytest.mark.parametrize("dead", [True, False])
def test_one_that_works_nothing_off_is_in_doubt(dead: bool) -> None:
    vllm, clock = FakeVllm(), Clock()
    watched = watch(vllm, clock)
    vllm.dead, vllm.hung = dead, True
    for _ in range(2):
        assert watched.holds(0)
        clock.now += 10.0
    with pytest.raises(Doubt):
        watched.holds(0)


def test_a_swap_that_is_due_goes_first_for_a_while() -> None:
    vllm, clock = FakeVllm(), Clock()
    vllm.label_ = "0"
    watched = watch(vllm, clock)
    assert watched.holds(0)
    calls = len(vllm.calls)
    clock.now += 11.9
    assert watched.holds(0, swap_due=True) and len(vllm.calls) == calls
    clock.now += 0.1
    assert watched.holds(0, swap_due=True) and len(vllm.calls) > calls
