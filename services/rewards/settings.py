"""Settings of the reward processor (table ``[rewards]``)."""

from __future__ import annotations

from pathlib import Path

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """What one worker of the reward processor wants to know."""

    spec: Path = Path(__file__).parent / "default.toml"
    """The reward spec, see :mod:`services.rewards.spec`."""
    tick_s: float = 1.0
    """How often the clock ticks on a partition where something is open."""
    idle_tick_s: float = 30.0
    """How often it ticks where nothing is."""
    skew_ms: int = 200
    """How far the clocks of two brokers may be apart: ticks run behind by that much."""
    commit_s: float = 1.0
    """How often offsets are committed: what a killed worker reads again."""
    stall_s: float = 30.0
    """How long a worker may stand still with something to read before its process ends. Twice that
    for an assignment of partitions, while the brokers answer."""
    instance: str | None = None
    """A name that this worker keeps over restarts, so that it has its partitions back at once, also
    after a kill. None: after a kill it takes 10 s until it or another worker gets them."""
    replay: bool = False
    """A replay's prefix: original append times are believed, only the replayer writes ticks."""
