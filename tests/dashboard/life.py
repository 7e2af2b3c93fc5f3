"""A small system on a log in memory, its records written by hand, and a reader over it."""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

from services.dashboard.board import READ, Board
from services.dashboard.feed import Feed
from services.dashboard.places import Places
from services.dashboard.reader import Reader
from services.dashboard.settings import Settings
from tailrace import events, ids, topics
from tailrace.log.base import Log, Position
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

MODEL = Settings().model
START_MS = 1_700_000_000_000


class Life:
    """Short ways to write every record. The clock stands still unless it is moved."""

    def __init__(self, log: Log | None = None, prefix: str = "") -> None:
        self.now_ms = START_MS
        self.log: Log = log or MemoryLog(lambda: self.now_ms)
        self.prefix = prefix
        self.log.create(topics.TOPICS, prefix=prefix, session_partitions=2)
        publish_schemas(self.log, prefix=prefix)
        self.producer = self.log.producer()
        self.writer = Writer(self.producer, Wire(), prefix=prefix, source="gateway")
        self._ends: dict[int, dict[int, int]] = {}
        self.version(0, None)

    def ask(
        self,
        session: str = "default:s",
        text: str = "how tall?",
        user: str | None = None,
        **fields: Any,
    ) -> str:
        """A prompt; the interaction's id."""
        turn = ids.new_interaction(session, self.now_ms)
        content = events.PromptContent(messages=json.dumps([{"role": "user", "content": text}]))
        record = events.Prompt(
            interaction_id=turn,
            session_id=session,
            event_time_ms=self.now_ms,
            tenant=ids.tenant_of(session),
            user=user,
            model=MODEL,
            learn=True,
            content=content,
            **fields,
        )
        self.writer.write(topics.PROMPTS, record).result()
        return turn

    def answer(self, turn: str, version: int = 0, text: str = "tall", engine: str = "e0") -> None:
        """An output of four tokens."""
        record = events.Output(
            interaction_id=turn,
            event_time_ms=self.now_ms,
            engine=engine,
            weight_versions=[events.VersionSpan(version=version, start=0, end=4)],
            ttft_ms=20.0,
            total_ms=50.0,
            content=events.OutputContent(
                message=json.dumps({"role": "assistant", "content": text}),
                token_ids=pack_ids([1, 2, 3, 4]),
            ),
        )
        self.writer.write(topics.OUTPUTS, record).result()

    def say(
        self, turn: str, up: bool = True, source: str = "user", grader: str | None = None
    ) -> tuple[str, Position]:
        """A vote: its id and where it lies."""
        feedback = ids.new_feedback(turn)
        record = events.Feedback(
            feedback_id=feedback,
            interaction_id=turn,
            event_time_ms=self.now_ms,
            kind="boolean",
            metric="thumbs",
            boolean=up,
            source=source,
            grader=grader,
            content=events.FeedbackContent(text="a comment"),
        )
        return feedback, self.writer.write(topics.FEEDBACK, record).result()

    def reward(
        self,
        turn: str,
        reward: float | None,
        said: Sequence[str] = (),
        version: int = 0,
        **fields: Any,
    ) -> tuple[str, Position]:
        """A trajectory: its id and where it lies."""
        name = fields.pop("trajectory_id", None) or ids.trajectory(turn, 0, list(said))
        record = events.Trajectory(
            trajectory_id=name,
            interaction_id=turn,
            event_time_ms=self.now_ms,
            reward=reward,
            feedback_ids=list(said),
            weight_versions=[events.VersionSpan(version=version, start=0, end=4)],
            output_log_time_ms=self.now_ms,
            **fields,
        )
        return name, self.writer.write(topics.TRAJECTORIES, record).result()

    def receipt(
        self,
        at: Position,
        subject: str,
        outcome: str,
        *,
        trajectories: Sequence[str] = (),
        version: int | None = None,
        key: str = "default:s",
        model: str = MODEL,
    ) -> None:
        """Of rewards, or with a version of the trainer."""
        trainer = version is not None
        record = events.Receipt(
            source=events.Coordinates(
                topic="trajectories" if trainer else "feedback",
                partition=at.partition,
                offset=at.offset,
            ),
            subject_id=subject,
            event_time_ms=self.now_ms,
            stage="trainer" if trainer else "rewards",
            outcome=outcome,
            trajectories=list(trajectories),
            model=model if trainer else None,
            version=version,
        )
        self.writer.write(topics.RECEIPTS, record, key=key).result()

    def step(self, version: int, inputs: dict[str, Position], **figures: float) -> None:
        """One optimizer step."""
        record = events.Step(
            model=MODEL,
            step=version,
            version=version,
            event_time_ms=self.now_ms,
            inputs=[
                events.StepInput(
                    partition=at.partition,
                    offset=at.offset,
                    trajectory_id=name,
                    objective="reinforce",
                    reward=1.0,
                )
                for name, at in inputs.items()
            ],
            figures={"ess": 0.9, "lag_mean": 1.0, **figures},
        )
        self.writer.write(topics.STEPS, record).result()

    def version(
        self, number: int, base: int | None, ends: dict[int, int] | None = None, **changes: Any
    ) -> None:
        """A manifest; ``ends``: of its ranges, which begin where those of its base end."""
        before = {} if base is None else self._ends[base]
        self._ends[number] = before | (ends or {})
        fields: dict[str, Any] = {
            "model": MODEL,
            "version": number,
            "created_ms": self.now_ms,
            "base_version": base,
            "base_digest": None if base is None else f"d{base}",
            "digest": f"d{number}",
            "kind": "keyframe" if base is None else "delta",
            "bytes": 1000,
            "ranges": [
                events.Range(partition=p, start=before.get(p, 0), end=end)
                for p, end in self._ends[number].items()
            ],
        }
        record = events.ModelUpdate(**(fields | changes))
        self.writer.write(topics.MODEL_UPDATES, record).result()

    def ack(self, version: int, state: str = "applied", engine: str = "e0") -> None:
        """What an engine says."""
        record = events.ModelAck(
            engine=engine,
            model=MODEL,
            version=version,
            event_time_ms=self.now_ms,
            state=state,
            pause_ms=30.0,
            apply_ms=100.0,
        )
        self.writer.write(topics.MODEL_ACKS, record).result()

    def learn(self, reward: float, version: int, **asked: Any) -> str:
        """One interaction all the way into a version that is served; one second each."""
        turn = self.ask(**asked)
        self.answer(turn, version - 1)
        said, vote = self.say(turn, reward > 0)
        self.now_ms += 1000
        name, made = self.reward(turn, reward, [said], version - 1)
        self.receipt(vote, said, "joined", trajectories=[name])
        self.now_ms += 1000
        self.step(version, {name: made})
        self.version(version, version - 1, {made.partition: made.offset + 1})
        self.receipt(made, name, "trained", version=version)
        self.now_ms += 1000
        self.ack(version)
        return turn


def reader_of(life: Life, **changes: Any) -> Reader:
    """A reader that has read what is there, and its board."""
    settings = Settings(prefix=life.prefix, **changes)
    board = Board(settings)
    places = Places(
        life.log,
        READ,
        prefix=life.prefix,
        every_s=1.0,
        graders=board.graders,
        now_ms=lambda: life.now_ms,
    )
    reader = Reader(settings, life.log, board, Feed(), places, now_ms=lambda: life.now_ms)
    places.ask()
    reader.catch_up()
    return reader


def picture(reader: Reader) -> Any:
    """All sections as JSON, as they are now."""
    return json.loads(reader.feed.whole())
