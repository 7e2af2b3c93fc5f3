"""What was asked, answered, said of it and decided, on a log in memory."""

from __future__ import annotations

import json

from tailrace import events, explain, ids, topics
from tailrace.events import Component
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

BEGAN_MS = 1_795_000_000_000
SESSION = "acme:chat-1"
TURN = ids.new_interaction(SESSION, BEGAN_MS)
EARLIER = ids.new_interaction(SESSION, BEGAN_MS - 60_000)


class Told:
    """A history: an answer, what was said of it, two revisions, and others beside it."""

    def __init__(self) -> None:
        self.now_ms = BEGAN_MS - 60_000
        self.log = MemoryLog(lambda: self.now_ms)
        self.log.create(topics.TOPICS, session_partitions=3)
        publish_schemas(self.log)
        self.writer = Writer(self.log.producer(), Wire())
        self.answer(EARLIER, "Hello.")
        self.now_ms = BEGAN_MS + 1000
        self.answer(TURN, "Rome.")

    def answer(self, turn: str, text: str) -> None:
        asked = [{"role": "user", "content": "What is the capital of Italy?"}]
        prompt = events.Prompt(
            interaction_id=turn,
            session_id=SESSION,
            event_time_ms=1,
            model="m",
            learn=True,
            content=events.PromptContent(messages=json.dumps(asked)),
        )
        output = events.Output(
            interaction_id=turn,
            event_time_ms=1,
            finish_reason="stop",
            weight_versions=[events.VersionSpan(version=41, start=0, end=2)],
            content=events.OutputContent(
                message=json.dumps({"role": "assistant", "content": text})
            ),
        )
        self.writer.write(topics.PROMPTS, prompt)
        self.writer.write(topics.OUTPUTS, output)

    def say(self, token: str, outcome: str | None, reason: str | None = None, **said) -> str:
        subject = said.pop("subject", TURN)
        record = events.Feedback(
            feedback_id=f"{subject}!{token}",
            interaction_id=subject if "~" in subject else None,
            session_id=None if "~" in subject else subject,
            event_time_ms=1,
            **{"metric": "thumbs"} | said,
        )
        at = self.writer.write(topics.FEEDBACK, record).result()
        if outcome is not None:
            receipt = events.Receipt(
                source=events.Coordinates(
                    topic="feedback", partition=at.partition, offset=at.offset
                ),
                subject_id=record.feedback_id,
                event_time_ms=1,
                stage="rewards",
                outcome=outcome,
                reason=reason,
            )
            self.writer.write(topics.RECEIPTS, receipt)
        return record.feedback_id

    def close(self, revision: int, reward: float | None, *terms: Component, **more) -> str:
        record = events.Trajectory(
            trajectory_id=f"t{revision}-{more.get('choice', 0)}",
            interaction_id=more.pop("turn", TURN),
            event_time_ms=1,
            revision=revision,
            reward=reward,
            components=list(terms),
            reward_spec="abc",
            closed_log_time_ms=BEGAN_MS + 5000 + revision,
            **more,
        )
        self.writer.write(topics.TRAJECTORIES, record)
        return record.trajectory_id

    def decide(self, trajectory: str, outcome: str, version: int) -> None:
        receipt = events.Receipt(
            source=events.Coordinates(topic="trajectories"),
            subject_id=trajectory,
            event_time_ms=1,
            stage="trainer",
            outcome=outcome,
            version=version,
        )
        self.writer.write(topics.RECEIPTS, receipt, key=SESSION)

    def words(self, turn: str = TURN) -> str:
        return "\n".join(explain.in_words(explain.gather(self.log, turn)))
