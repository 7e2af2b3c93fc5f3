"""float32 masters to the bfloat16 that computes and is published, so that small updates count.

To the nearest value, a weight would stay where it began until its master is half a step of bfloat16
away: at 0.05 that is six updates of 2e-5, and what is served would not move before. So every weight
has a threshold of its own in the step, at which it goes up, and the thresholds are spread evenly
over the weights: together they move as far as their masters did, from the first update on, though
each by a whole step or not at all. This is the dither of signal processing, or the stochastic
rounding of Gupta et al. 2015 (arXiv 1502.02551) with nothing drawn: a weight's threshold is fixed
by its place, so the same masters always make the same bits, a weight whose master rests does too,
and what bfloat16 has already stays as it is.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_TURN = 1 << 30
_GOLDEN = 663_608_941
""":data:`_TURN` over the golden ratio: multiples of it, modulo the turn, are spread evenly in any
stretch and at any stride (Weyl's sequence)."""
_PART = 1 << 20
"""Weights at once: what is made on the way is small."""


def rounded(master: Tensor, start: int = 0) -> Tensor:
    """bfloat16 of a finite float32 tensor, in its shape: each value is one of the two around it.

    ``start``: how many weights are before it, where it is a part of a tensor.
    """
    bits_N = master.reshape(-1).view(torch.int32)
    found_N = torch.empty(bits_N.shape, dtype=torch.bfloat16, device=master.device)
    for begin in range(0, len(bits_N), _PART):
        part_N = bits_N[begin : begin + _PART]
        # Of the 16 bits that are cut off, from 0 to 65535: added to the magnitude, they carry.
        threshold_N = _places(master.device)[: len(part_N)] + (start + begin) * _GOLDEN % _TURN
        threshold_N.bitwise_and_(_TURN - 1).bitwise_right_shift_(14)
        cut_N = threshold_N.add_(part_N).bitwise_and_(-(1 << 16))
        found_N[begin : begin + _PART].copy_(cut_N.view(torch.float32))
    return found_N.view(master.shape)


@functools.cache
def _places(device: torch.device) -> Tensor:
    return (torch.arange(_PART, device=device) * _GOLDEN % _TURN).int()
