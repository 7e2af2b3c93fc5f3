"""The rounding of masters: one of two neighbours, the right one on average, the same each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import torch

from services.trainer.rounding import rounded

WEIGHTS = 1 << 14


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.integers(0, 1 << 40),
)
def test_a_weight_becomes_one_of_the_two_values_around_it(values: list[float], start: int) -> None:
    master = torch.tensor(values)
    bits = master.view(torch.int32)
    towards_0 = (bits & -65536).view(torch.float32)
    away = ((bits & -65536) + (bits & 65535 != 0).int() * 65536).view(torch.float32)
    found = rounded(master, start).float()
    assert bool(((found == towards_0) | (found == away)).all())
    # What bfloat16 has already stays, sign of zero included.
    finite = found[found.isfinite()]
    again = rounded(finite, start + 1)
    assert torch.equal(again.view(torch.int16), finite.bfloat16().view(torch.int16))


@given(
    st.floats(1e-3, 1e3),
    st.floats(-1.0, 1.0),
    st.sampled_from([1, 2, 7, 576, 1536, 4096, 1 << 16]),
)
def test_weights_together_move_as_far_as_their_masters(
    weight: float, steps: float, stride: int
) -> None:
    """In any row, and in any column of any width."""
    base = torch.full((WEIGHTS,), weight).bfloat16().float()
    step = float(base[0].view(1).view(torch.int32).add(65536).view(torch.float32) - base[0])
    master = base + steps * step
    found = torch.stack([rounded(master[:1], place * stride) for place in range(0, 512)]).float()
    moved = float((found - base[0]).mean())
    assert abs(moved - float(master[0] - base[0])) < 0.05 * step
    row = float((rounded(master, stride).float() - base).mean())
    assert abs(row - float(master[0] - base[0])) < 0.01 * step


def test_parts_round_as_the_whole_does_and_small_updates_are_not_lost() -> None:
    torch.manual_seed(0)
    base = (torch.randn(300, 7001) * 0.1).bfloat16()
    master = base.float() + 2e-5
    whole = rounded(master)
    parts = torch.cat([rounded(master[:100]), rounded(master[100:], 100 * 7001)])
    assert torch.equal(whole, parts)
    moved = (whole.double() - base.double()).mean()
    assert abs(float(moved) - 2e-5) < 5e-7
    nearest = (master.bfloat16().double() - base.double()).mean()
    assert float(nearest) < 1e-5, "rounding to the nearest would do as well"
