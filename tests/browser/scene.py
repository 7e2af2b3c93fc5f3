"""The past of a small system, written on a log in memory under a clock of its own.

People ask, most say what they think, rewards joins, a trainer takes batches, engines swap: the
records that the services would write, so that every account adds up and every version has a cause.
Satisfaction rises with the version. Drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import random
import time
from typing import Any

from tailrace import events, ids, topics
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.stream import Writer, publish_schemas
from tailrace.topics import Topic
from tailrace.wire import Wire
from tests.browser.mill import ENGINES, Mill

MODEL = "smollm2-135m-instruct"
PARTITIONS = 4
_PAST_MS = 20 * 60 * 1000
QUESTIONS = (
    "What is the capital of Italy?",
    "Why is the sky blue?",
    "How do I boil an egg?",
    "Say something kind.",
    "Which river runs through Vienna?",
)
ANSWERS = (
    "Rome is the capital of Italy.",
    "Light is scattered by the air, and blue light more than red.",
    "Put it into boiling water for seven minutes.",
    "You have done more today than you think.",
    "The Danube.",
)


class Scene:
    """A log and those who write on it; ``now_ms`` is its clock, which follows the real one as soon
    as the past is told."""

    def __init__(self, spell: Callable[[str], list[int]], seed: int = 0) -> None:
        """``spell``: the token ids of a text."""
        self.spell = spell
        self.chance = random.Random(seed)
        self.past_ms: float | None = time.time() * 1000 - _PAST_MS
        self.log = MemoryLog(self.now_ms)
        self.log.create(topics.TOPICS, session_partitions=PARTITIONS)
        publish_schemas(self.log)
        self.wire = Wire()
        self.producer = self.log.producer()
        self.writers = {
            name: Writer(self.producer, self.wire, source=name)
            for name in ("gateway", "rewards", "trainer", "drift", "releases", *ENGINES)
        }
        self.waiting: list[tuple[Position, events.Trajectory]] = []
        self.turns: list[str] = []
        self.mill = Mill(self, PARTITIONS)

    @property
    def head(self) -> int:
        """The newest version."""
        return self.mill.head

    def now_ms(self) -> int:
        """The clock of the log."""
        return int(time.time() * 1000 if self.past_ms is None else self.past_ms)

    def pass_by(self, seconds: float) -> None:
        """Let time go, while the past is told."""
        if self.past_ms is not None:
            self.past_ms += seconds * 1000

    def write(self, who: str, topic: Topic, record: events.Struct, **how: Any) -> Position:
        """One record, and where it lies."""
        self.pass_by(0.02)
        return self.writers[who].write(topic, record, **how).result()

    def past(self, versions: int = 14, answers: int = 24) -> None:
        """So many versions, each of so many answers; then the clock is the real one."""
        self.version()
        for _ in range(1, versions):
            for _ in range(answers):
                self.turn()
            self.mill.alarm()
            self.version()
        for _ in range(7):
            self.turn()
        self.past_ms = None

    def turn(self, question: str | None = None) -> str:
        """A question and its answer, perhaps a thumb, and what rewards makes of it."""
        session = f"default:chat-{self.chance.randrange(40)}"
        number = self.chance.randrange(len(QUESTIONS))
        interaction = ids.new_interaction(session, self.now_ms())
        self.turns.append(interaction)
        asked = json.dumps([{"role": "user", "content": question or QUESTIONS[number]}])
        answer = json.dumps({"role": "assistant", "content": ANSWERS[number]})
        tokens = self.spell(ANSWERS[number])
        spans = self._spans(len(tokens))
        content = events.OutputContent(
            message=answer,
            token_ids=pack_ids(tokens),
            logprobs=pack_logprobs(-self.chance.expovariate(1.5) for _ in tokens),
        )
        common: dict[str, Any] = {"interaction_id": interaction, "event_time_ms": self.now_ms()}
        prompt = events.Prompt(
            **common,
            session_id=session,
            tenant="default",
            user=f"user-{self.chance.randrange(12)}",
            model=MODEL,
            sampling={"temperature": "0.8"},
            learn=True,
            tags={"team": self.chance.choice(("red", "blue"))},
            content=events.PromptContent(messages=asked, prompt_token_ids=pack_ids(range(12))),
        )
        self.write("gateway", topics.PROMPTS, prompt)
        output = events.Output(
            **common,
            engine=self.chance.choice(ENGINES),
            finish_reason="stop",
            weight_versions=spans,
            ttft_ms=self.chance.uniform(40, 160),
            total_ms=self.chance.uniform(200, 900),
            content=content,
        )
        self.write("gateway", topics.OUTPUTS, output)
        thumb = self._thumb(interaction)
        self.pass_by(2.0)
        reward = None if thumb is None else 1.0 if thumb[1].boolean else -1.0
        feedback = [] if thumb is None else [thumb[1].feedback_id]
        trajectory = events.Trajectory(
            **common,
            trajectory_id=ids.trajectory(interaction, 0, feedback),
            reward=0.0 if reward is None else reward,
            components=[
                events.Component(
                    name="thumbs",
                    value=reward,
                    weight=1.0,
                    reason=None if thumb else "no_feedback",
                )
            ],
            reward_spec="5f2d9c1e",
            feedback_ids=feedback,
            tenant="default",
            user=prompt.user,
            learn=True,
            model=MODEL,
            engine=output.engine,
            weight_versions=spans,
            closed_log_time_ms=self.now_ms(),
            content=events.TrajectoryContent(messages=asked, message=answer),
        )
        position = self.write("rewards", topics.TRAJECTORIES, trajectory)
        self.waiting.append((position, trajectory))
        if thumb is not None:
            self.receipt("feedback", thumb[0], "joined", trajectory, subject=feedback[0])
        return interaction

    def _thumb(self, interaction: str) -> tuple[Position, events.Feedback] | None:
        if self.chance.random() > 0.75:
            return None
        self.pass_by(self.chance.uniform(0.5, 2.0))
        likes = min(0.95, 0.2 + 0.06 * max(0, self.head))
        said = events.Feedback(
            feedback_id=ids.new_feedback(interaction),
            interaction_id=interaction,
            event_time_ms=self.now_ms(),
            tenant="default",
            kind="boolean",
            metric="thumbs",
            boolean=self.chance.random() < likes,
        )
        return self.write("gateway", topics.FEEDBACK, said), said

    def receipt(
        self,
        topic: str,
        at: Position,
        outcome: str,
        trajectory: events.Trajectory,
        *,
        subject: str,
        version: int | None = None,
    ) -> None:
        """What became of a feedback, or with a version of a trajectory."""
        record = events.Receipt(
            source=events.Coordinates(topic=topic, partition=at.partition, offset=at.offset),
            subject_id=subject,
            event_time_ms=self.now_ms(),
            stage="rewards" if version is None else "trainer",
            outcome=outcome,
            trajectories=[trajectory.trajectory_id],
            model=None if version is None else MODEL,
            version=version,
        )
        who = "rewards" if version is None else "trainer"
        key = ids.session_of(trajectory.interaction_id)
        self.write(who, topics.RECEIPTS, record, key=key)

    def version(self) -> int:
        """Train on all that waits: the number of the version that comes of it."""
        return self.mill.version()

    def _spans(self, length: int) -> list[events.VersionSpan]:
        head = max(0, self.head)
        if head and length > 3 and self.chance.random() < 0.25:
            return [
                events.VersionSpan(version=head - 1, start=0, end=2),
                events.VersionSpan(version=head, start=2, end=length),
            ]
        return [events.VersionSpan(version=head, start=0, end=length)]
