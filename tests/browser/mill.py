"""Those who make weights of it, for :mod:`tests.browser.scene`: trainer, engines, drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace import events, topics
from tailrace.log.base import Position

if TYPE_CHECKING:
    from tests.browser.scene import Scene

ENGINES = ("engine-0", "engine-1")
MODEL = "smollm2-135m-instruct"


class Mill:
    """Trains on what waits in a scene, and says what the services would say of it."""

    def __init__(self, scene: Scene, partitions: int) -> None:
        self.scene = scene
        self.decided = dict.fromkeys(range(partitions), 0)
        self.head = -1
        self.step = 0

    def version(self) -> int:
        """Train on all that waits, publish what comes of it, and let the engines take it."""
        scene = self.scene
        base, self.head = self.head, self.head + 1
        version, batch = self.head, scene.waiting
        scene.waiting = []
        scene.pass_by(9.0)
        figures = self._figures(len(batch), version)
        if batch:
            self.step += 1
            step = events.Step(
                model=MODEL,
                step=self.step,
                version=version,
                event_time_ms=scene.now_ms(),
                inputs=[self._input(position, one) for position, one in batch],
                lr=2e-5,
                torch="2.13.0",
                figures=figures,
            )
            scene.write("trainer", topics.STEPS, step)
        starts = dict(self.decided)
        for position, one in batch:
            name, partition = one.trajectory_id, position.partition
            self.decided[partition] = max(self.decided[partition], position.offset + 1)
            scene.receipt("trajectories", position, "trained", one, subject=name, version=version)
        chunk = scene.producer.append(topics.MODEL_CHUNKS.name, b"x", key=MODEL.encode()).result()
        update = events.ModelUpdate(
            model=MODEL,
            version=version,
            created_ms=scene.now_ms(),
            base_version=None if base < 0 else base,
            base_digest=None if base < 0 else f"d{base}",
            kind="keyframe" if base < 0 else "delta",
            chunks=events.Chunks(offsets=[chunk.offset]),
            bytes=269_000_000 if base < 0 else scene.chance.randrange(4_000_000, 6_500_000),
            digest=f"d{version}",
            keyframe_version=0,
            ranges=[
                events.Range(partition=p, start=starts[p], end=end)
                for p, end in self.decided.items()
            ],
            first_step=self.step if batch else None,
            last_step=self.step if batch else None,
            figures=figures,
        )
        scene.write("trainer", topics.MODEL_UPDATES, update)
        for engine in ENGINES:
            self.ack(engine, version)
        return version

    def ack(self, engine: str, version: int, state: str = "applied", **more: Any) -> None:
        """An engine's word."""
        scene = self.scene
        scene.pass_by(1.0)
        record = events.ModelAck(
            engine=engine,
            model=MODEL,
            version=version,
            event_time_ms=scene.now_ms(),
            state=state,
            **{"pause_ms": scene.chance.uniform(300, 700), "apply_ms": 900.0} | more,
        )
        scene.write(engine, topics.MODEL_ACKS, record)

    def alarm(self, state: str = "fired") -> None:
        """Drift saw something, now and then."""
        scene = self.scene
        if state == "fired" and self.head % 6 != 4:
            return
        record = events.Alarm(
            stream="answer_length",
            event_time_ms=scene.now_ms(),
            detector="adwin",
            state=state,
            value=9.2,
            baseline=14.8,
            seen=400,
            message="answers got shorter",
        )
        scene.write("drift", topics.ALARMS, record)

    def _input(self, position: Position, one: events.Trajectory) -> events.StepInput:
        return events.StepInput(
            partition=position.partition,
            offset=position.offset,
            trajectory_id=one.trajectory_id,
            objective="reinforce",
            weight=1.0,
            age_versions=0,
            reward=one.reward,
        )

    def _figures(self, answers: int, version: int) -> dict[str, float]:
        near, chance = 1.0 / (1 + version), self.scene.chance
        return {
            "answers": float(answers),
            "reward": min(0.9, 0.06 * version) + chance.uniform(-0.1, 0.1),
            "ess": chance.uniform(0.9, 0.99),
            "mismatch_kl": chance.uniform(0.001, 0.004),
            "entropy": 1.2 + near + chance.uniform(-0.1, 0.1),
            "length_tokens": 9 + 12 * near + chance.uniform(-1, 1),
            "lag_mean": chance.uniform(0.1, 1.2),
            "lag_max": float(chance.randrange(1, 4)),
            "loss": chance.uniform(-0.05, 0.05),
            "grad_norm": chance.uniform(0.5, 1.5),
            "clip_fraction": chance.uniform(0, 0.02),
            "step_s": chance.uniform(8, 12),
            "tokens_per_s": chance.uniform(300, 420),
            "idle_share": chance.uniform(0.2, 0.5),
        }
