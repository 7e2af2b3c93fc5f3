"""What the trainer counts. Every record that is not trained on is here with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from services.trainer.figures import LAGS
from tailrace.events import StepInput

DECISIONS = Counter(
    "tailrace_trainer_decisions_total", "Trajectory records decided", ("outcome", "reason")
)
EXPIRED = Counter("tailrace_trainer_expired_total", "Records that were gone before they were read")
DEAD_LETTERS = Counter(
    "tailrace_trainer_dead_letters_total", "Records put on dead-letters", ("topic", "reason")
)
ALARMS_LOST = Counter("tailrace_trainer_alarms_lost_total", "Alarms that the log did not take")
LAG_S = Gauge("tailrace_trainer_lag_seconds", "Age of the newest trajectory when it was read")
COMMANDS = Counter("tailrace_trainer_commands_total", "Commands seen on control", ("command",))
FROZEN = Gauge("tailrace_trainer_frozen_ratio", "1 while an order to freeze holds, else 0")
HELD = Gauge("tailrace_trainer_held_answers", "Usable answers that wait for a batch")
STEPS = Counter("tailrace_trainer_steps_total", "Optimizer steps, by how they ended", ("outcome",))
STEP_S = Histogram(
    "tailrace_trainer_step_seconds", "One optimizer step", buckets=(1, 2, 4, 6, 8, 10, 15, 20, 40)
)
PUBLISH_S = Histogram(
    "tailrace_trainer_publish_seconds",
    "Encoding and publishing one version",
    buckets=(0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
)
UPDATE_BYTES = Histogram(
    "tailrace_trainer_update_bytes", "Stream of one version", buckets=[4.0**n for n in range(5, 18)]
)
VERSION = Gauge("tailrace_trainer_published_version", "Newest published version")
FIGURE = Gauge(
    "tailrace_trainer_figure_value",
    "Figures of the last step, each in its own unit (docs/training.md)",
    ("figure",),
)
ANSWERS = Counter("tailrace_trainer_answers_total", "Answers trained on", ("objective",))
LAG = Histogram(
    "tailrace_trainer_lag_versions",
    "Age of each answer trained on, in weight changes",
    buckets=LAGS,
)
NO_SIGNAL = Counter("tailrace_trainer_no_signal_total", "Steps of which no answer taught anything")
CHECKPOINTS = Counter(
    "tailrace_trainer_checkpoints_total", "Checkpoints, by how they ended", ("outcome",)
)
CHECKPOINT_FAILURES = Counter(
    "tailrace_trainer_checkpoint_failures_total",
    "Checkpoints that could not be written or read",
    ("reason",),
)
CHECKPOINT_S = Histogram(
    "tailrace_trainer_checkpoint_seconds",
    "Time for which one checkpoint kept the trainer from training",
    buckets=(0.01, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
)
REPLAYED = Counter("tailrace_trainer_replayed_steps_total", "Steps taken again after a restart")
RESEEDS = Counter(
    "tailrace_trainer_reseeds_total",
    "Restarts that went on from published weights, by why",
    ("reason",),
)
UNREADABLE = Counter(
    "tailrace_trainer_unreadable_versions_total",
    "Versions that could not be made again, so that training went on before them",
)


for _outcome in ("trained", "non_finite"):
    STEPS.labels(_outcome)  # at 0 from the start: else the first one is no increase
for _outcome in ("begun", "busy", "failed"):
    CHECKPOINTS.labels(_outcome)
_REASONS = 100
"""A reason can be a word of the record itself; there are not this many that we know."""
_reasons: set[str] = set()


def decided(outcome: str, reason: str) -> None:
    """One record was; ``other`` is every reason that came after the first hundred."""
    if len(_reasons) < _REASONS:
        _reasons.add(reason)
    DECISIONS.labels(outcome, reason if reason in _reasons else "other").inc()


def stepped(figures: Mapping[str, float], inputs: Iterable[StepInput]) -> None:
    """One step was taken, with these inputs."""
    STEPS.labels("trained").inc()
    STEP_S.observe(figures["step_s"])
    NO_SIGNAL.inc(figures["no_signal"])
    for given in inputs:
        ANSWERS.labels(given.objective or "").inc()
        if given.age_versions is not None:
            LAG.observe(given.age_versions)
    # What the last step did not have is not to stand beside what it had.
    FIGURE.clear()
    for name, value in figures.items():
        FIGURE.labels(name).set(value)


def stall_share() -> float:
    """Of this process's time in steps, versions and checkpoints, the share that was not steps; 0
    before any. With /metrics: the same of the sums of ``tailrace_trainer_publish_seconds``,
    ``_checkpoint_seconds`` and ``_step_seconds``, over whatever time is asked for."""
    stalled_s, trained_s = _sum_s(PUBLISH_S) + _sum_s(CHECKPOINT_S), _sum_s(STEP_S)
    return stalled_s / (stalled_s + trained_s) if stalled_s else 0.0


def _sum_s(times: Histogram) -> float:
    [family] = times.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith("_sum"))
