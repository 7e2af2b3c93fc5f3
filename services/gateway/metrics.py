"""What the gateway counts. Every drop, refusal and time-out is here with its reason."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Counter(
    "tailrace_gateway_requests_total",
    "Chat and text requests that ended, by how",
    ("outcome",),
)
REFUSED = Counter(
    "tailrace_gateway_refused_total", "Requests answered with an error", ("status", "code")
)
REQUEST_S = Histogram("tailrace_gateway_request_seconds", "Whole answers", buckets=_SECONDS)
TTFT_S = Histogram("tailrace_gateway_ttft_seconds", "First token of a stream", buckets=_SECONDS)
OVERHEAD_S = Histogram(
    "tailrace_gateway_overhead_seconds",
    "From the request's arrival to its way to the engine",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
)
TOKENS = Counter("tailrace_gateway_tokens_total", "Tokens in and out", ("kind",))
UNTRAINABLE = Counter(
    "tailrace_gateway_untrainable_total", "Outputs that cannot be trained on", ("reason",)
)
ENGINE_RETRIES = Counter(
    "tailrace_gateway_engine_retries_total", "Calls of the engine that were repeated", ("reason",)
)
RECORDS = Counter(
    "tailrace_gateway_records_total",
    "Records that reached Kafka or the spool",
    ("topic", "where"),
)
LOST = Counter(
    "tailrace_gateway_lost_total", "Records that were dropped or lost content", ("topic", "reason")
)
TRACEPARENTS_IGNORED = Counter(
    "tailrace_gateway_traceparents_ignored_total", "Requests with a malformed traceparent"
)
REBUILDS = Counter(
    "tailrace_gateway_rebuilds_total", "Producers replaced after a fatal error, tries included"
)
QUEUE_BYTES = Gauge("tailrace_gateway_queue_bytes", "Records in memory on their way to Kafka")
SPOOL_BYTES = Gauge("tailrace_gateway_spool_bytes", "Records on disk on their way to Kafka")
SPOOL_RECORDS = Gauge("tailrace_gateway_spool_records", "Records on disk on their way to Kafka")
REDIS_ERRORS = Counter("tailrace_gateway_redis_errors_total", "Redis calls that failed", ("use",))
FOLDED = Counter("tailrace_gateway_folded_total", "Log records folded into Redis", ("topic",))
FOLD_SKIPPED = Counter(
    "tailrace_gateway_fold_skipped_total", "Log records that could not be folded", ("reason",)
)
