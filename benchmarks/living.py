"""The records of a living system, as many as are wanted: for who reads them.

An interaction is six records: prompt, answer, vote, trajectory and the receipts of both; every 48
of them make a step, a version and an engine's ack. Receipts name where the record lies that they
are of, so they are written once that is known (:meth:`Living.settle`).
"""

from __future__ import annotations

from collections import deque
import json
import random
import time
from typing import Any

from tailrace import events, ids, packing, topics
from tailrace.log.base import Log
from tailrace.stream import Writer
from tailrace.wire import Wire

MODEL = "benchmark"
PARTITIONS = 4
STEP = 48


class Living:
    """Writes; ``written`` counts the records. For one thread."""

    def __init__(self, log: Log) -> None:
        self.written = 0
        self.producer = log.producer()
        self._writer = Writer(self.producer, Wire(), source="benchmark")
        self._chance = random.Random(0)
        self._version = 0
        self._inputs: list[events.StepInput] = []
        self._ends = [0] * PARTITIONS
        words = "the water runs down the channel and back into the river below the mill "
        self._asked = json.dumps([{"role": "user", "content": (words * 4)[:200]}])
        self._answer = json.dumps({"role": "assistant", "content": (words * 4)[:200]})
        self._tokens = packing.pack_ids(range(1000, 1050))
        self._logprobs = packing.pack_logprobs([-0.5] * 50)
        self._waiting: deque[tuple[Any, Any, str, str, str]] = deque()
        """Votes and trajectories whose places are not known yet."""
        self._publish(None)

    def write(self, topic: topics.Topic, record: Any, **where: Any) -> Any:
        self.written += 1
        return self._writer.write(topic, record, **where)

    def interaction(self) -> None:
        """One, all the way to what the trainer made of it."""
        now_ms = time.time_ns() // 1_000_000
        session = f"default:{self._chance.getrandbits(48):x}"
        turn = ids.new_interaction(session, now_ms)
        spans = [events.VersionSpan(version=self._version, start=0, end=50)]
        self.write(
            topics.PROMPTS,
            events.Prompt(
                interaction_id=turn,
                session_id=session,
                event_time_ms=now_ms,
                model=MODEL,
                content=events.PromptContent(messages=self._asked, prompt_token_ids=self._tokens),
            ),
        )
        self.write(
            topics.OUTPUTS,
            events.Output(
                interaction_id=turn,
                event_time_ms=now_ms,
                engine="engine-0",
                weight_versions=spans,
                ttft_ms=40.0,
                total_ms=900.0,
                content=events.OutputContent(
                    message=self._answer, token_ids=self._tokens, logprobs=self._logprobs
                ),
            ),
        )
        up = self._chance.random() < 0.6
        vote = events.Feedback(
            feedback_id=f"{turn}!f",
            interaction_id=turn,
            event_time_ms=now_ms,
            kind="boolean",
            metric="thumbs",
            boolean=up,
        )
        said = self.write(topics.FEEDBACK, vote)
        name = ids.trajectory(turn, 0, [vote.feedback_id])
        made = self.write(
            topics.TRAJECTORIES,
            events.Trajectory(
                trajectory_id=name,
                interaction_id=turn,
                event_time_ms=now_ms,
                reward=1.0 if up else -1.0,
                feedback_ids=[vote.feedback_id],
                weight_versions=spans,
                output_log_time_ms=now_ms,
            ),
        )
        self._waiting.append((said, made, vote.feedback_id, name, session))

    def settle(self) -> None:
        """Receipts of what was acknowledged, and a version of every so many."""
        while self._waiting and self._waiting[0][0].done() and self._waiting[0][1].done():
            voted, closed, vote, name, session = self._waiting.popleft()
            said, made = voted.result(), closed.result()
            self._receipt("feedback", said, vote, "joined", [name], session)
            self._receipt("trajectories", made, name, "trained", [], session)
            self._ends[made.partition] = max(self._ends[made.partition], made.offset + 1)
            self._inputs.append(
                events.StepInput(
                    partition=made.partition,
                    offset=made.offset,
                    trajectory_id=name,
                    objective="reinforce",
                )
            )
            if len(self._inputs) == STEP:
                self._publish(self._version)

    def _receipt(
        self, topic: str, at: Any, subject: str, outcome: str, made: list[str], session: str
    ) -> None:
        trainer = topic == "trajectories"
        where = events.Coordinates(topic=topic, partition=at.partition, offset=at.offset)
        record = events.Receipt(
            source=where,
            subject_id=subject,
            event_time_ms=1,
            stage="trainer" if trainer else "rewards",
            outcome=outcome,
            trajectories=made,
            model=MODEL,
            version=self._version + 1 if trainer else None,
        )
        self.write(topics.RECEIPTS, record, key=session)

    def _publish(self, base: int | None) -> None:
        now_ms = time.time_ns() // 1_000_000
        version = 0 if base is None else base + 1
        figures = {"reward": 0.2, "ess": 0.9, "entropy": 1.5, "lag_mean": 1.0, "step_s": 8.0}
        if base is not None:
            step = events.Step(
                model=MODEL,
                step=version,
                version=version,
                event_time_ms=now_ms,
                inputs=self._inputs,
                figures=figures,
            )
            self.write(topics.STEPS, step)
        update = events.ModelUpdate(
            model=MODEL,
            version=version,
            created_ms=now_ms,
            base_version=base,
            base_digest=None if base is None else f"{base:064x}",
            digest=f"{version:064x}",
            kind="keyframe" if base is None else "delta",
            bytes=1_000_000,
            ranges=[events.Range(partition=p, end=end) for p, end in enumerate(self._ends)],
            figures=figures,
        )
        self.write(topics.MODEL_UPDATES, update)
        ack = events.ModelAck(
            engine="engine-0",
            model=MODEL,
            version=version,
            event_time_ms=now_ms,
            state="applied",
            pause_ms=80.0,
        )
        self.write(topics.MODEL_ACKS, ack)
        self._version, self._inputs = version, []
