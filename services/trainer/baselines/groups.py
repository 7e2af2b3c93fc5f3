"""Leave-one-out among the answers of one group. Pure, and without a state.

RLOO (Kool et al. 2019, openreview r1lgTGL5DE; for language models Ahmadian et al. 2024, arXiv
2402.14740, eq. 7): what the others of a group earned is expected of each,
``A_i = r_i - mean of r_j, j != i``. It stays unbiased whichever others there are, so a group that
lost members has one too.
"""

from __future__ import annotations

from collections.abc import Sequence


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Advantages of one group's rewards, two at least.

    >>> leave_one_out([1.0, 0.0, 0.5])
    [0.75, -0.75, 0.0]
    """
    assert len(rewards) > 1
    others = len(rewards) - 1
    if min(rewards) == max(rewards):  # no signal is zero, whatever a sum rounds to
        return [0.0] * len(rewards)
    total = sum(rewards)
    return [reward - (total - reward) / others for reward in rewards]
