"""What the dashboard counts of itself."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from services.dashboard.system import Account

RECORDS = Counter("tailrace_dashboard_records", "Records read")
BEHIND = Gauge("tailrace_dashboard_behind_records", "Records on the log that are not read yet")
LOG_ERRORS = Counter("tailrace_dashboard_log_errors", "Times that the log failed the reader")
REFRESH_S = Histogram(
    "tailrace_dashboard_refresh_seconds",
    "Making and encoding one picture",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
PUBLISHED_BYTES = Counter("tailrace_dashboard_published_bytes", "Sections that changed, encoded")
VIEWERS = Gauge("tailrace_dashboard_open_streams", "Viewers of the picture")
REFUSED = Counter(
    "tailrace_dashboard_refused", "Requests answered with an error", ["http_response_status_code"]
)
TAIL_SKIPPED = Counter(
    "tailrace_dashboard_tail_skipped_records", "Records that a tail was too slow for"
)
UNACCOUNTED = Gauge(
    "tailrace_dashboard_unaccounted_records",
    "Records of the conservation table that should have an outcome and have none, or have two",
    ["line"],
)


def accounted(account: Account) -> None:
    """The conservation table as it is now."""
    for line in account.lines:
        UNACCOUNTED.labels(line.name).set(line.missing + abs(line.unaccounted))
