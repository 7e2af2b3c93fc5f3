"""When a feedback record without a receipt is missing, and no longer in flight.

In: what the log says of the rewards process' time: its ticks, and the trajectories that it made.
Out: whether a feedback record should have had its receipt. Two bounds:

- A trajectory carries the time of the tick that closed it. So that tick has *acted*, and feedback
  that is older than it by the wait and orphan windows of the reward spec was decided before. Known
  only with the spec's windows.
- A tick says what time it is, not that anything was decided: a worker that comes back after a
  while has yet to read what it missed. So this bound is wide.

Called by :mod:`tailrace.audit`; :func:`window_s` by those who know the settings.
"""

from __future__ import annotations

from pathlib import Path
import tomllib

from tailrace import settings
from tailrace.errors import SettingsError

TICKED_S = 7200.0
"""How far the ticks of a partition may pass a feedback record. The default spec's windows are
4200 s together."""
_SENT_S = 30.0
"""What is decided at once may be seen at different times: topics are sent to apart."""
_WAIT_S, _ORPHAN_S = 600.0, 3600.0
"""What a reward spec means that does not say; a test holds them against the rewards process."""


class Deadline:
    """Both bounds for one log. Feed it in any order, then ask."""

    def __init__(self, *, ticked_s: float = TICKED_S, window_s: float | None = None) -> None:
        """``window_s``: of :func:`window_s`; None: not known, so ticks alone count."""
        self._ticked_ms = ticked_s * 1000
        self._acted_ms = None if window_s is None else (window_s + _SENT_S) * 1000
        self._ticks: dict[int, int] = {}
        self._acted: dict[int, int] = {}

    def tick(self, partition: int, time_ms: int) -> None:
        """The rewards clock of one partition."""
        self._ticks[partition] = max(self._ticks.get(partition, 0), time_ms)

    def acted(self, partition: int, time_ms: int) -> None:
        """A trajectory of one partition, by the time of the tick that made it."""
        self._acted[partition] = max(self._acted.get(partition, 0), time_ms)

    def passed(self, partition: int, time_ms: int) -> bool:
        """Whether feedback that was appended at ``time_ms`` had to be decided by now."""
        if self._ticks.get(partition, 0) - time_ms > self._ticked_ms:
            return True
        acted_ms = self._acted.get(partition, 0) - time_ms
        return self._acted_ms is not None and acted_ms > self._acted_ms


def window_s(settings_file: Path) -> float | None:
    """How long feedback can stay undecided by the reward spec that a settings file names.

    What is alone is given up after the orphan window; what found its answer within that closes
    after the longest wait window: of the spec, its metrics and its implicit terms.
    None: the file or its ``rewards.spec`` is not there. Raises SettingsError for a file or a spec
    that cannot be read.
    """
    if not settings_file.exists():
        return None
    spec = settings.read(settings_file).get("rewards", {}).get("spec")
    if spec is None:
        return None
    try:
        rules = tomllib.loads(Path(spec).read_text())
        terms = [*rules.get("metrics", {}).values(), *rules.get("implicit", {}).values()]
        waits = [rules.get("wait_s", _WAIT_S), *(t["wait_s"] for t in terms if "wait_s" in t)]
        return max(map(float, waits)) + float(rules.get("orphan_s", _ORPHAN_S))
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(f"rewards.spec: {spec}: {error}") from None
