"""Which trajectories are exported. Pure."""

from __future__ import annotations

import msgspec

from tailrace.events import Trajectory


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for. None: no such bound."""

    min_reward: float | None = None
    max_reward: float | None = None
    versions: tuple[int, int] | None = None
    """First and last version that may have sampled an answer, each token of it."""
    tenants: tuple[str, ...] = ()
    without_consent: bool = False
    """Also those of which nobody said that they may be learnt from. The log has no texts of them:
    rewards take them out."""

    def refuses(self, one: Trajectory) -> str | None:
        """Why a trajectory is left out, reward aside; None: it is not."""
        if one.learn is not True and not self.without_consent:
            return "no_consent"
        if self.tenants and one.tenant not in self.tenants:
            return "tenant"
        if self.versions is not None:
            low, high = self.versions
            sampled = [span.version for span in one.weight_versions]
            if not sampled or any(v is None or not low <= v <= high for v in sampled):
                return "version"
        return None

    def refuses_reward(self, reward: float | None) -> bool:
        """Whether a reward is out of bounds; none is, where there is one."""
        low, high = self.min_reward, self.max_reward
        if low is None and high is None:
            return False
        return reward is None or (
            (low is not None and reward < low) or (high is not None and reward > high)
        )


def versions(text: str) -> tuple[int, int]:
    """``41..43``, ``41..`` or ``41``. Raises ValueError.

    >>> versions("41..43"), versions("7")
    ((41, 43), (7, 7))
    """
    first, dots, last = text.partition("..")
    try:
        low = int(first)
        return low, (int(last) if last else 2**63 - 1) if dots else low
    except ValueError:
        raise ValueError(f"{text!r} is neither a version nor a range of them (41..43)") from None
