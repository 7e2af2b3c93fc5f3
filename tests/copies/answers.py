"""Trajectories on a log in memory: some answers, what was said of them."""

from __future__ import annotations

import json
from typing import Any

from tailrace import events, ids, topics
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

NOW_MS = 1_700_000_000_000


class Answers:
    """A log and short ways to put trajectories on it."""

    def __init__(self, partitions: int = 2) -> None:
        self.now_ms = NOW_MS
        self.log = MemoryLog(lambda: self.now_ms)
        self.log.create(topics.TOPICS, session_partitions=partitions)
        publish_schemas(self.log)
        self.writer = Writer(self.log.producer(), Wire())

    def turn(self, tenant: str = "default", session: str = "s") -> str:
        self.now_ms += 1000
        return ids.new_interaction(f"{tenant}:{session}", self.now_ms)

    def add(
        self, turn: str | None = None, *, text: str = "Paris.", **fields: Any
    ) -> events.Trajectory:
        """A trajectory of an answer; ``asked``, ``edit`` and ``messages`` are its texts."""
        turn = turn or self.turn()
        asked = fields.pop("asked", "What is the capital of France?")
        messages = fields.pop("messages", [{"role": "user", "content": asked}])
        content = events.TrajectoryContent(
            messages=json.dumps(messages),
            prompt_token_ids=pack_ids([1, 2, 3]),
            message=json.dumps(fields.pop("message", {"role": "assistant", "content": text})),
            token_ids=pack_ids([4, 5]),
            logprobs=pack_logprobs([-0.5, -1.0]),
            demonstration=fields.pop("edit", None),
        )
        choice, revision = fields.get("choice", 0), fields.get("revision", 0)
        made: dict[str, Any] = {
            "trajectory_id": ids.trajectory(turn, choice, [str(revision)]),
            "interaction_id": turn,
            "event_time_ms": self.now_ms,
            "reward": 1.0,
            "components": [events.Component(name="thumbs", value=1.0, weight=1.0)],
            "tenant": ids.tenant_of(turn),
            "learn": True,
            "weight_versions": [events.VersionSpan(version=3, start=0, end=2)],
            "tags": {"place": "shop"},
            "closed_log_time_ms": self.now_ms,
            "content": content,
        }
        one = events.Trajectory(**made | fields)
        self.writer.write(topics.TRAJECTORIES, one)
        return one

    def revise(self, one: events.Trajectory, **fields: Any) -> events.Trajectory:
        """The next revision of an answer."""
        return self.add(
            one.interaction_id,
            choice=one.choice,
            revision=one.revision + 1,
            supersedes=one.trajectory_id,
            **fields,
        )
