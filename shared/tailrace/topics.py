"""The one table of topics: name, record, key, partitions, time, retention.

Services, the local runner, audits and (by test) every manifest take their topics from here.
Names get the settings' prefix through :func:`named`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace import events

DAY_MS = 24 * 3600 * 1000
RAW_RETENTION_MS = 30 * DAY_MS
MAX_RECORD_BYTES = 8 * 1024 * 1024
MAX_CHUNK_BYTES = 900_000
SESSION_PARTITIONS = 12
LOCAL_SESSION_PARTITIONS = 4


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    record: type[events.Struct] | None
    """None: the values are raw bytes."""
    key: str
    by_session: bool = False
    """Partitioned by session (``SESSION_PARTITIONS``), so all of a session meets in one
    partition."""
    retention_ms: int | None = RAW_RETENTION_MS
    """None: kept for ever."""
    cleanup: Literal["delete", "compact"] = "delete"
    compression: Literal["producer", "uncompressed"] = "producer"
    transactional: bool = False
    """Written in transactions: read committed, which hides open and aborted ones."""

    def partitions(self, session_partitions: int) -> int:
        """How many partitions this topic has where session topics have ``session_partitions``."""
        return session_partitions if self.by_session else 1

    def config(self) -> dict[str, str]:
        """The broker-side configuration."""
        config = {
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "cleanup.policy": self.cleanup,
            "compression.type": self.compression,
        }
        if self.cleanup == "delete":
            config["retention.ms"] = str(-1 if self.retention_ms is None else self.retention_ms)
        return config


PROMPTS = Topic(name="prompts", record=events.Prompt, key="session", by_session=True)
OUTPUTS = Topic(name="outputs", record=events.Output, key="session", by_session=True)
FEEDBACK = Topic(name="feedback", record=events.Feedback, key="session", by_session=True)
TRAJECTORIES = Topic(name="trajectories", record=events.Trajectory, key="session", by_session=True)
RECEIPTS = Topic(
    name="receipts", record=events.Receipt, key="session", by_session=True, transactional=True
)
TICKS = Topic(name="ticks", record=events.Tick, key="partition", by_session=True)
STEPS = Topic(name="steps", record=events.Step, key="model", retention_ms=None, transactional=True)
MODEL_UPDATES = Topic(
    name="model-updates",
    record=events.ModelUpdate,
    key="model",
    retention_ms=None,
    transactional=True,
)
MODEL_CHUNKS = Topic(
    name="model-chunks", record=None, key="model", retention_ms=None, compression="uncompressed"
)
MODEL_ACKS = Topic(name="model-acks", record=events.ModelAck, key="engine")
RELEASES = Topic(
    name="releases", record=events.Release, key="model", retention_ms=None, transactional=True
)
ALARMS = Topic(name="alarms", record=events.Alarm, key="stream")
CONTROL = Topic(name="control", record=events.Command, key="model", retention_ms=None)
SCHEMAS = Topic(
    name="schemas", record=None, key="fingerprint", retention_ms=None, cleanup="compact"
)
DEAD_LETTERS = Topic(name="dead-letters", record=None, key="original")

TOPICS: tuple[Topic, ...] = (
    PROMPTS,
    OUTPUTS,
    FEEDBACK,
    TRAJECTORIES,
    RECEIPTS,
    TICKS,
    STEPS,
    MODEL_UPDATES,
    MODEL_CHUNKS,
    MODEL_ACKS,
    RELEASES,
    ALARMS,
    CONTROL,
    SCHEMAS,
    DEAD_LETTERS,
)


def named(topic: Topic, prefix: str = "") -> str:
    """The topic's full name under a prefix.

    >>> named(PROMPTS, "replay-1.")
    'replay-1.prompts'
    """
    return prefix + topic.name


def by_name(name: str, prefix: str = "") -> Topic:
    """The row of a full name. Raises KeyError when no topic of the table has it."""
    for topic in TOPICS:
        if named(topic, prefix) == name:
            return topic
    raise KeyError(name)
