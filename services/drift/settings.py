"""Settings of the drift process: ``[drift]`` in the file, ``TAILRACE_DRIFT_*`` above it."""

from __future__ import annotations

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """What fires, and how often the detectors are put on disk."""

    adwin_delta: float = 0.002
    """ADWIN's confidence: smaller is calmer. 0.002 gave no false alarm in 10,000 values."""
    hddm_confidence: float = 1e-6
    """HDDM_W's drift confidence. River's default of 0.001 raises 4 false alarms in 10,000 votes."""
    hddm_lambda: float = 0.01
    """Weight that HDDM_W gives the newest vote against those before it."""
    quiet_values: int = 200
    """A detector that fired is cleared after so many values without firing again."""
    skew_s: float = 2.0
    """How far this machine's clock may be ahead of a broker's; alarms are late by as much."""
    checkpoint_s: float = 10.0
    """Detectors are put on disk this often; what came later is read again after a crash."""
