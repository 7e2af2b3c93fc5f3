"""The detectors: values in, alarms out. Pure: no clock, no log, no chance.

::

    value ──┬─────────────────────────> ADWIN                   the mean moved
            └─ (value - mean)^2 ──────> ADWIN                   the spread moved (no change of mean)
    thumbs_down ──────────────────────> HDDM_W, one-sided       the rate went up

A detector that finds a change *fires* once; it is *cleared* after ``quiet_values`` values without
another. ADWIN drops the old part of its window as it fires, so cleared means: steady on the new
level. The same values in the same order give the same alarms, also across a pickled and restored
bank (:mod:`.state`).

ADWIN: Bifet and Gavaldà 2007. HDDM_W: Frías-Blanco et al. 2014. Both by River.
"""

from __future__ import annotations

from collections import deque

from river.drift import ADWIN
from river.drift.binary import HDDMW

from services.drift.streams import THUMBS_DOWN
from tailrace.events import Alarm, Coordinates

_RESIDUALS_FROM = 30
"""Values before the mean is good enough to take residuals from."""
_RECENT = 50


class MeanDetector:
    """ADWIN over one series."""

    name = "adwin"

    def __init__(self, delta: float) -> None:
        self._adwin = ADWIN(delta=delta)
        self.baseline = 0.0
        """Mean of the window before the last value."""

    @property
    def level(self) -> float:
        """Mean of the window now."""
        return float(self._adwin.estimation)

    def update(self, value: float) -> bool:
        """Take one value; whether it shows a change."""
        self.baseline = self.level
        self._adwin.update(value)
        return bool(self._adwin.drift_detected)


class SpreadDetector(MeanDetector):
    """ADWIN over the squared residuals of a series."""

    name = "adwin_squared_residual"

    def __init__(self, delta: float) -> None:
        super().__init__(delta)
        self._of = ADWIN(delta=delta)

    def update(self, value: float) -> bool:
        """Take one value; whether its squared distance from the mean so far shows a change."""
        mean, enough = self._of.estimation, self._of.width >= _RESIDUALS_FROM
        self._of.update(value)
        return super().update((value - mean) ** 2) if enough else False


class RateDetector:
    """HDDM_W over a series of 0 and 1; fires when the rate of ones goes up."""

    name = "hddm_w"

    def __init__(self, confidence: float, weight: float) -> None:
        self._hddm = HDDMW(
            drift_confidence=confidence,
            warning_confidence=min(1.0, confidence * 10),
            lambda_val=weight,
        )
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._sum, self._count = 0.0, 0

    @property
    def level(self) -> float:
        """Rate of the last 50 values."""
        return sum(self._recent) / max(1, len(self._recent))

    @property
    def baseline(self) -> float:
        """Rate since the last change, the last 50 values left out where there are more."""
        older = self._count - len(self._recent)
        return (self._sum - sum(self._recent)) / older if older > 0 else self._sum / self._count

    def update(self, value: float) -> bool:
        """Take one value; whether it shows a change."""
        if self._hddm.drift_detected:
            self._sum, self._count = 0.0, 0
            self._recent.clear()
        self._recent.append(value)
        self._sum, self._count = self._sum + value, self._count + 1
        self._hddm.update(value >= 0.5)
        return bool(self._hddm.drift_detected)


class Watch:
    """One detector on one stream, with its memory of whether it is firing."""

    def __init__(
        self, stream: str, detector: MeanDetector | RateDetector, quiet_values: int
    ) -> None:
        self.stream = stream
        self.detector = detector
        self.firing = False
        self._quiet_values = quiet_values
        self._seen = 0
        self._fired_at = 0

    def observe(self, value: float, time_ms: int, source: Coordinates) -> Alarm | None:
        """Take one value; the alarm that it makes fire or clear."""
        self._seen += 1
        changed = self.detector.update(value)
        if changed:
            self._fired_at = self._seen
        if changed and not self.firing:
            self.firing = True
            return self._alarm("fired", time_ms, source)
        if self.firing and self._seen - self._fired_at >= self._quiet_values:
            self.firing = False
            return self._alarm("cleared", time_ms, source)
        return None

    def _alarm(self, state: str, time_ms: int, source: Coordinates) -> Alarm:
        baseline, level = self.detector.baseline, self.detector.level
        if state == "fired":
            message = f"went from {baseline:.4g} to {level:.4g}"
        else:
            message = f"is steady at {level:.4g}"
        return Alarm(
            stream=self.stream,
            event_time_ms=time_ms,
            detector=self.detector.name,
            state=state,
            value=level,
            baseline=baseline if state == "fired" else None,
            seen=self._seen,
            source=source,
            message=f"{self.stream} {message} ({self.detector.name})",
        )


class Bank:
    """All detectors of all streams. A stream gets its detectors when its first value comes."""

    def __init__(
        self,
        *,
        adwin_delta: float = 0.002,
        hddm_confidence: float = 1e-6,
        hddm_lambda: float = 0.01,
        quiet_values: int = 200,
    ) -> None:
        self.parameters = {
            "adwin_delta": adwin_delta,
            "hddm_confidence": hddm_confidence,
            "hddm_lambda": hddm_lambda,
            "quiet_values": quiet_values,
        }
        """What the detectors were built with; a checkpoint of another bank is not restored."""
        self._watches: dict[str, list[Watch]] = {}

    def observe(self, stream: str, value: float, time_ms: int, source: Coordinates) -> list[Alarm]:
        """Take one value of a stream, of the record at ``source`` with log time ``time_ms``."""
        if stream not in self._watches:
            self._watches[stream] = self._build(stream)
        alarms = (watch.observe(value, time_ms, source) for watch in self._watches[stream])
        return [alarm for alarm in alarms if alarm is not None]

    def watches(self) -> list[Watch]:
        """Every detector there is, for metrics."""
        return [watch for stream in self._watches.values() for watch in stream]

    def _build(self, stream: str) -> list[Watch]:
        p = self.parameters
        detectors: list[MeanDetector | RateDetector]
        if stream == THUMBS_DOWN:
            detectors = [RateDetector(p["hddm_confidence"], p["hddm_lambda"])]
        else:
            detectors = [MeanDetector(p["adwin_delta"]), SpreadDetector(p["adwin_delta"])]
        return [Watch(stream, detector, int(p["quiet_values"])) for detector in detectors]
