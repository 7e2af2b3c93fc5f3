"""A reward worker on a machine whose wall clock jumps twice a second, by up to ten years."""

from __future__ import annotations

import sys
import time

JUMPS_S = (0, 3600, -86_400, 10 * 365 * 86_400, -10 * 365 * 86_400, 5, -5)
real_s, real_ns = time.time, time.time_ns


def jump_s() -> int:
    return JUMPS_S[int(time.monotonic() * 2) % len(JUMPS_S)]


time.time = lambda: real_s() + jump_s()
time.time_ns = lambda: real_ns() + jump_s() * 1_000_000_000

from services.rewards import __main__ as rewards  # noqa: E402

sys.exit(rewards.main())
