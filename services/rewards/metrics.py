"""What /metrics says about the reward processor."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class Metrics:
    """Counters and gauges of one worker."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.records = Counter(
            "tailrace_rewards_records_total", "Records read", ["topic"], registry=registry
        )
        self.receipts = Counter(
            "tailrace_rewards_receipts_total",
            "Receipts sent, repetitions after a crash included",
            ["outcome"],
            registry=registry,
        )
        self.trajectories = Counter(
            "tailrace_rewards_trajectories_total",
            "Trajectories sent, repetitions after a crash included; cut_short: the first of an "
            "answer that was evicted before its wait ended",
            ["kind"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "tailrace_rewards_dead_letters_total",
            "Records put on dead-letters",
            ["topic", "reason"],
            registry=registry,
        )
        self.passed_over = Gauge(
            "tailrace_rewards_passed_over_records",
            "Records neither used nor answered, each counted by the worker that has its partition, "
            "since it was assigned; read again after an assignment, they count again",
            ["topic", "reason"],
            registry=registry,
        )
        self.open_entries = Gauge(
            "tailrace_rewards_open_entries",
            "Answers and prompts that wait for something",
            registry=registry,
        )
        self.waiting_ticks = Gauge(
            "tailrace_rewards_waiting_ticks",
            "Ticks whose ends have not been read yet",
            registry=registry,
        )
        self.table_values = Gauge(
            "tailrace_rewards_table_values",
            "Values in the table's partitions that this worker has",
            registry=registry,
        )
        self.table_bytes = Gauge(
            "tailrace_rewards_table_bytes",
            "Keys and values of the table's partitions that this worker has, without overhead",
            registry=registry,
        )
        self.recovery_values = Gauge(
            "tailrace_rewards_recovery_values",
            "Values of the table that are still to be read from its changelog",
            registry=registry,
        )
        self.lag = Gauge(
            "tailrace_rewards_lag_records",
            "Records between the position and the end when the clock last asked",
            ["topic"],
            registry=registry,
        )
        self.clock_failures = Counter(
            "tailrace_rewards_clock_failures_total",
            "Ticks that could not be written",
            registry=registry,
        )
        self.blocked_partitions = Gauge(
            "tailrace_rewards_blocked_partitions",
            "Partitions where a tick waits for records beyond the topic's end",
            registry=registry,
        )
        self.probe_failures = Counter(
            "tailrace_rewards_probe_failures_total",
            "Times that the brokers did not say what a waiting tick lacks",
            registry=registry,
        )
