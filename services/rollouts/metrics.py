"""What the rollouts count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

GROUPS = Counter("tailrace_rollouts_groups", "Groups that lie on the log, whole", ["benchmark"])
DROPPED = Counter(
    "tailrace_rollouts_dropped_groups",
    "Groups given up, nothing of which is on the log",
    ["benchmark", "reason"],
)
RETRIES = Counter("tailrace_rollouts_retries", "Answers asked for again", ["engine", "reason"])
YIELDED = Counter(
    "tailrace_rollouts_yielded", "Answers broken off because live requests waited", ["engine"]
)
UNREADY = Counter(
    "tailrace_rollouts_unready", "Times that an engine did not say how busy it is", ["engine"]
)
REPEATED = Counter(
    "tailrace_rollouts_repeated_groups", "Groups that a restart appended again, under their own ids"
)
IN_FLIGHT = Gauge("tailrace_rollouts_in_flight_requests", "Requests of ours", ["engine"])
ALLOWED = Gauge("tailrace_rollouts_allowed_requests", "How many there may be", ["engine"])
SCORE = Histogram(
    "tailrace_rollouts_score_ratio",
    "Scores of the answers on the log",
    ["benchmark"],
    buckets=(0, 0.25, 0.5, 0.75, 1),
)
ANSWER_S = Histogram(
    "tailrace_rollouts_answer_seconds",
    "From the request to the answer",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160),
)
