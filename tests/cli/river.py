"""A log in memory from prompts to weights: what the gateway, the rewards' own join, the trainer's
publisher and engines write."""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

import msgspec

from services.rewards import offline, spec
from services.rewards.emission import Send
from tailrace import events, ids, topics, why
from tailrace.events import Coordinates, ModelUpdate, Range, Receipt, Step, StepInput, VersionSpan
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.reading import read
from tailrace.settings import Common
from tailrace.stream import Writer, publish_schemas
from tailrace.weights import codec
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.engine.models import MODEL, canary, tensors

BEGAN_MS = 1_795_000_000_000
SESSION = "acme:chat-1"
RULES = """
wait_s = 60
late = "correct"
[metrics.thumbs]
true = 1.0
false = -1.0
[metrics.solved]
true = 1.0
"""


class River:
    """One partition, a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_ms = BEGAN_MS
        self.log = MemoryLog(lambda: self.now_ms)
        self.log.create(topics.TOPICS, session_partitions=1)
        publish_schemas(self.log)
        self.common = Common(model=MODEL)
        self.writer = Writer(self.log.producer(), Wire())
        self._publisher = Publisher(self.log, Wire(), model=MODEL)
        self._rules = spec.parse(RULES)
        self._sent: set[bytes] = set()
        self._steps = 0
        self._decided: dict[int, int] = {}
        """By version: the offset on trajectories up to which it decided."""

    def ask(self, text: str, said: str, *, session: str = SESSION, **more: Any) -> str:
        """A prompt and its answer of three tokens, the last by version 1; the interaction."""
        self.now_ms += 1000
        turn = ids.new_interaction(session, self.now_ms, chance=self.now_ms % 1000)
        prompt = events.Prompt(
            interaction_id=turn,
            session_id=session,
            event_time_ms=self.now_ms,
            model=MODEL,
            learn=True,
            user="u1",
            content=events.PromptContent(
                messages=json.dumps([{"role": "user", "content": text}]),
                prompt_token_ids=pack_ids([1, 2]),
            ),
        )
        spans = [VersionSpan(version=0, start=0, end=2), VersionSpan(version=1, start=2, end=3)]
        values: dict[str, Any] = {
            "engine": "one",
            "finish_reason": "stop",
            "weight_versions": spans,
            "total_ms": 1200.0,
            "content": events.OutputContent(
                message=json.dumps({"role": "assistant", "content": said}),
                token_ids=pack_ids([5, 6, 7]),
                logprobs=pack_logprobs([-0.5, -1.0, -1.5]),
            ),
        }
        output = events.Output(interaction_id=turn, event_time_ms=self.now_ms, **(values | more))
        self.writer.write(topics.PROMPTS, prompt)
        self.writer.write(topics.OUTPUTS, output)
        return turn

    def say(self, subject: str, token: str, good: bool, **more: Any) -> str:
        """A thumb; its id."""
        self.now_ms += 1000
        turn = ids.is_interaction(subject)
        record = events.Feedback(
            feedback_id=f"{subject}!{token}",
            interaction_id=subject if turn else None,
            session_id=None if turn else subject,
            event_time_ms=self.now_ms,
            **{"tenant": "acme", "kind": "boolean", "metric": "thumbs", "boolean": good} | more,
        )
        self.writer.write(topics.FEEDBACK, record)
        return record.feedback_id

    def settle(self) -> None:
        """The rewards of everything so far."""
        self.now_ms += 100_000
        ends = {kind: self.log.ends(kind)[0] for kind in ("prompts", "outputs", "feedback")}
        tick = events.Tick(partition=0, event_time_ms=self.now_ms, ends=ends)
        self.writer.write(topics.TICKS, tick, partition=0)
        logs = {kind: list(read(kind, log=self.log)) for kind in (*ends, "ticks")}
        for out in offline.run(self._rules, 0, 1, logs):  # type: ignore[arg-type]
            assert isinstance(out, Send)
            value = msgspec.msgpack.encode(out)
            if value not in self._sent:
                self._sent.add(value)
                kind = events.Trajectory
                topic = topics.TRAJECTORIES if isinstance(out.record, kind) else topics.RECEIPTS
                self.writer.write(topic, out.record, key=(out.key or b"").decode(), partition=0)

    def trajectories(self) -> list[tuple[Position, events.Trajectory]]:
        found = []
        for record, event in read("trajectories", log=self.log):
            assert isinstance(event, events.Trajectory)
            found.append((Position(record.partition, record.offset), event))
        return found

    def train(
        self, version: int, base: int | None = None, held: Sequence[int] = (), **given: Any
    ) -> ModelUpdate:
        """A version that trains every trajectory that its base has not decided, in one step.
        ``held`` are left for later; ``given`` is said of every input."""
        self.now_ms += 1000
        start = self._decided.get(-1 if base is None else base, 0)
        new = [(at, event) for at, event in self.trajectories() if at.offset >= start]
        end = start + len(new)
        new = [(at, event) for at, event in new if at.offset not in held]
        self._decided[version] = end
        inputs = [
            StepInput(
                partition=at.partition,
                offset=at.offset,
                trajectory_id=event.trajectory_id,
                **{"objective": "reinforce", "weight": 1.0, "age_versions": 1}
                | {"reward": event.reward}
                | given,
            )
            for at, event in new
        ]
        receipts = [
            (
                ids.session_of(event.interaction_id),
                Receipt(
                    source=Coordinates(topic="trajectories", partition=0, offset=at.offset),
                    subject_id=event.trajectory_id,
                    event_time_ms=self.now_ms,
                    stage="trainer",
                    outcome="trained",
                    model=MODEL,
                    version=version,
                    trajectories=[event.trajectory_id],
                ),
            )
            for at, event in new
        ]
        figures = {"loss": 0.5, "grad_norm": 1.0, "reward": 0.5, "answers": float(len(new))}
        self._steps += bool(new)
        step = Step(
            model=MODEL,
            step=self._steps,
            version=version,
            event_time_ms=self.now_ms,
            inputs=inputs,
            lr=1e-5,
            figures=figures,
        )
        parent = None if base is None else self._publisher.version(base)
        manifest = ModelUpdate(
            model=MODEL,
            version=version,
            created_ms=self.now_ms,
            base_version=base,
            base_digest=parent and parent.digest,
            digest=digest(tensors(version)),
            ranges=[Range(partition=0, start=start, end=end, held=list(held))],
            first_step=self._steps if new else None,
            last_step=self._steps if new else None,
            figures=figures,
            canary=canary([-0.5, -0.25]),
        )
        if parent is None:
            stream = codec.encode_keyframe(tensors(version), {})
        else:
            assert base is not None
            stream = codec.encode_delta(tensors(base), tensors(version))
        return self._publisher.publish(manifest, stream, [step] if new else [], receipts)

    def learn(self) -> tuple[str, str]:
        """Versions 0 and 1, which is trained on two answers; the liked one and the other."""
        self.train(0)
        good = self.ask("What is the capital of Italy?", "Rome.")
        bad = self.ask("And of France?", "Rome.")
        self.say(good, "a", True)
        self.say(bad, "b", False)
        self.settle()
        self.train(1, 0)
        return good, bad

    def ack(self, engine: str, version: int, state: str = "applied", **more: Any) -> None:
        self.now_ms += 1000
        record = events.ModelAck(
            engine=engine,
            model=MODEL,
            version=version,
            event_time_ms=self.now_ms,
            state=state,
            **more,
        )
        self.writer.write(topics.MODEL_ACKS, record)

    def turns(self) -> list[str]:
        """The interactions that have a trajectory."""
        return [event.interaction_id for _, event in self.trajectories()]

    def turn(self, subject: str, common: Common | None = None) -> why.Turn:
        """Why of an interaction or a feedback."""
        found = why.gather(self.log, common or self.common, subject, now_ms=self.now_ms)
        assert isinstance(found, why.Turn)
        return found

    def weights(self, version: int) -> why.Weights:
        """Why of a version."""
        found = why.gather(self.log, self.common, str(version), now_ms=self.now_ms)
        assert isinstance(found, why.Weights)
        return found

    def close(self) -> None:
        self._publisher.close()
