"""What the graders count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

GRADED = Counter("tailrace_graders_graded", "Answers that got a grade", ["grader"])
CACHED = Counter("tailrace_graders_cached", "Grades that were known already", ["grader"])
FAILED = Counter("tailrace_graders_failed", "Answers given up", ["grader", "reason"])
SKIPPED = Counter("tailrace_graders_skipped", "Answers not graded", ["grader", "reason"])
RETRIES = Counter("tailrace_graders_retries", "Attempts made again", ["grader", "reason"])
LAG = Gauge("tailrace_graders_lag_records", "Outputs that are not done yet", ["grader"])
WAITING = Gauge("tailrace_graders_waiting_outputs", "Outputs without their prompt", ["grader"])
PAUSES = Counter(
    "tailrace_graders_pauses", "How often reading stopped for outputs without prompts", ["grader"]
)
SECONDS = Histogram(
    "tailrace_graders_call_seconds",
    "How long one call of a function or one request to a judge took",
    ["grader"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60),
)
