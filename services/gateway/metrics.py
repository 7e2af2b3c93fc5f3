"""What the gateway counts. Every drop, refusal and time-out is here with its reason.

Labels that OpenTelemetry has a name for have that name (docs/metrics.md).
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_MODEL = "gen_ai_request_model"
"""The name of the model that is served, never the text that a client sent."""

REQUESTS = Counter(
    "tailrace_gateway_requests_total",
    "Chat and text requests that ended, by how",
    ("outcome", _MODEL),
)
REFUSED = Counter(
    "tailrace_gateway_refused_total",
    "Requests answered with an error",
    ("http_response_status_code", "error_type"),
)
REQUEST_S = Histogram(
    "tailrace_gateway_request_seconds",
    "From a request's arrival to the end of its answer",
    (_MODEL,),
    buckets=_SECONDS,
)
TTFT_S = Histogram(
    "tailrace_gateway_ttft_seconds",
    "From a request's arrival to the first token of each streamed answer",
    (_MODEL,),
    buckets=_SECONDS,
)
OVERHEAD_S = Histogram(
    "tailrace_gateway_overhead_seconds",
    "From the request's arrival to its way to the engine",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
)
TOKENS = Counter(
    "tailrace_gateway_tokens_total",
    "Tokens of prompts (input) and answers (output)",
    ("gen_ai_token_type", _MODEL),
)
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
SPOOL_LIMIT_BYTES = Gauge(
    "tailrace_gateway_spool_limit_bytes", "Records on disk are never more than this"
)
SPOOL_RECORDS = Gauge("tailrace_gateway_spool_records", "Records on disk on their way to Kafka")
REDIS_ERRORS = Counter("tailrace_gateway_redis_errors_total", "Redis calls that failed", ("use",))
FOLDED = Counter("tailrace_gateway_folded_total", "Log records folded into Redis", ("topic",))
FOLD_SKIPPED = Counter(
    "tailrace_gateway_fold_skipped_total", "Log records that could not be folded", ("reason",)
)
