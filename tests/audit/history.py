"""Histories on a log in memory: feedback, trajectories, receipts, and versions that count them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tailrace import events, ids, topics
from tailrace.audit import read
from tailrace.deadline import Deadline
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.report import Report
from tailrace.stream import Writer, publish_schemas
from tailrace.weights.trust import Signer
from tailrace.wire import Wire

MODEL = "m"
PARTITIONS = 2


class History:
    """A log and short ways to write on it. The clock stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.log = MemoryLog(lambda: self.now_ms)
        self.log.create(topics.TOPICS, session_partitions=PARTITIONS)
        publish_schemas(self.log)
        self.wire = Wire()
        self.writer = Writer(self.log.producer(), self.wire)
        self.session = "default:s"
        self.signer: Signer | None = None
        """Signs the versions from now on."""
        self.version(0, None)

    def feedback(self) -> Position:
        turn = ids.new_interaction(self.session, self.now_ms)
        record = events.Feedback(
            feedback_id=ids.new_feedback(turn), interaction_id=turn, event_time_ms=1
        )
        return self.writer.write(topics.FEEDBACK, record).result()

    def joined(self, at: Position, outcome: str = "joined") -> None:
        self._receipt("feedback", at, "rewards", outcome, None)

    def trajectory(self, partition: int = 0, name: str | None = None, time_ms: int = 1) -> Position:
        turn = ids.new_interaction(self.session, self.now_ms)
        record = events.Trajectory(
            trajectory_id=name or ids.trajectory(turn, 0, []),
            interaction_id=turn,
            event_time_ms=time_ms,
        )
        return self.writer.write(topics.TRAJECTORIES, record, partition=partition).result()

    def decided(self, at: Position, version: int, outcome: str = "trained") -> None:
        self._receipt("trajectories", at, "trainer", outcome, version)

    def _receipt(
        self, topic: str, at: Position, stage: str, outcome: str, version: int | None
    ) -> None:
        receipt = events.Receipt(
            source=events.Coordinates(topic=topic, partition=at.partition, offset=at.offset),
            subject_id="",
            event_time_ms=1,
            stage=stage,
            outcome=outcome,
            model=MODEL if version is not None else None,
            version=version,
        )
        self.writer.write(topics.RECEIPTS, receipt, key=self.session)

    def step(self, version: int, *inputs: Position) -> None:
        record = events.Step(
            model=MODEL,
            step=version,
            version=version,
            event_time_ms=1,
            inputs=[
                events.StepInput(partition=p.partition, offset=p.offset, trajectory_id="")
                for p in inputs
            ],
        )
        self.writer.write(topics.STEPS, record)

    def release(self, **fields: Any) -> None:
        self.writer.write(topics.RELEASES, events.Release(model=MODEL, event_time_ms=1, **fields))

    def version(
        self,
        number: int,
        base: int | None,
        decided: dict[int, tuple[int, int, list[int]]] | None = None,
        **changes: Any,
    ) -> None:
        """``decided``: partition to start, end, held."""
        fields: dict[str, Any] = {
            "model": MODEL,
            "version": number,
            "created_ms": 1,
            "base_version": base,
            "base_digest": None if base is None else f"d{base}",
            "digest": f"d{number}",
            "kind": "keyframe" if base is None else "delta",
            "chunks": events.Chunks(offsets=[self._chunk()]),
            "ranges": [
                events.Range(partition=p, start=start, end=end, held=held)
                for p, (start, end, held) in (decided or {}).items()
            ],
        }
        value = self.wire.encode(events.ModelUpdate(**(fields | changes)))
        headers = {} if self.signer is None else self.signer.headers(value)
        self.writer.producer.append(
            topics.MODEL_UPDATES.name, value, key=MODEL.encode(), headers=headers
        )

    def _chunk(self) -> int:
        return self.writer.producer.append("model-chunks", b"x", key=b"m").result().offset

    def report(
        self,
        head: int | None = None,
        decide_within_s: float = 60.0,
        window_s: float | None = None,
        trust: Sequence[Path] = (),
    ) -> Report:
        deadline = Deadline(ticked_s=decide_within_s, window_s=window_s)
        return read(self.log, self.wire, model=MODEL, deadline=deadline, trust=trust).report(head)


def kinds(report: Report) -> list[str]:
    return [problem.kind for problem in report.problems]
