"""A live small system for *Talk*: Kafka, Redis, rewards and the gateway as they are, a stand-in for
vLLM, and a trainer's and an engine's words written by hand.
"""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any

from services.gateway.build import build
from services.gateway.settings import Settings
from services.local.ports import free_port
from tailrace import events, topics
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Decoder, read_all
from tailrace.wire import Wire
from tests.browser.stage import Stage
from tests.gateway.conftest import MODEL
from tests.gateway.fakevllm import FakeVllm, Served, wait_until
from tests.rewards.worker import Bench, Worker

SPEC = """
wait_s = 1.0
orphan_s = 2
[metrics.thumbs]
true = 1.0
false = -1.0
"""


class Town:
    """Everything up; ``url`` is the page's."""

    def __init__(
        self, bootstrap: str, redis: str, prefix: str, model_dir: Path, folder: Path
    ) -> None:
        self.bench = Bench(bootstrap, prefix)
        self.vllm = FakeVllm()
        self.engine = Served(self.vllm.app, lifespan="off")
        port, gateway_port = free_port(), free_port()
        self.stage = Stage(
            KafkaLog(bootstrap),
            folder,
            port=port,
            prefix=prefix,
            kafka=bootstrap,
            gateway_url=f"http://127.0.0.1:{gateway_port}",
        )
        self.worker = Worker(folder, bootstrap, prefix, spec=SPEC, stall_s=60.0)
        self.worker.start()
        settings = Settings(
            state_dir=folder,
            model_dir=model_dir,
            engine_url=self.engine.url,
            kafka=bootstrap,
            redis=redis,
            prefix=prefix,
            port=gateway_port,
            cors_origins=(self.stage.url,),
            learn_default=True,
        )
        gateway, self.fold = build(settings, now_ms=lambda: time.time_ns() // 1_000_000)
        assert self.fold is not None
        self.fold.start()
        self.gateway = Served(gateway.app(), port=gateway_port)
        self.url = self.stage.url

    def trajectory(self, interaction: str) -> tuple[Any, events.Trajectory]:
        """The newest trajectory of an interaction, as soon as it is there, and where it lies."""
        decoder = Decoder(self.bench.log, Wire(), prefix=self.bench.prefix)
        found: list[tuple[Any, events.Trajectory]] = []

        def there() -> bool:
            for record in read_all(self.bench.log, self.bench.prefix + "trajectories"):
                event = decoder.decode(record)
                if isinstance(event, events.Trajectory) and event.interaction_id == interaction:
                    found.append((record, event))
            return bool(found)

        wait_until(there, "the trajectory", 30.0)
        return found[-1]

    def train(self, interaction: str, version: int) -> None:
        """As the trainer does: an answer into a version."""
        record, one = self.trajectory(interaction)
        place = events.Coordinates(
            topic="trajectories", partition=record.partition, offset=record.offset
        )
        now_ms = time.time_ns() // 1_000_000
        receipt = events.Receipt(
            source=place,
            subject_id=one.trajectory_id,
            event_time_ms=now_ms,
            stage="trainer",
            outcome="trained",
            trajectories=[one.trajectory_id],
            model=MODEL,
            version=version,
        )
        session = interaction.partition("~")[0]
        self.bench.writer.write(topics.RECEIPTS, receipt, key=session).result(10)

    def serve(self, version: int) -> None:
        """As an engine does; from now on answers are of this version, but for their first token."""
        ack = events.ModelAck(
            engine="engine-0",
            model=MODEL,
            version=version,
            event_time_ms=time.time_ns() // 1_000_000,
            state="applied",
        )
        self.bench.writer.write(topics.MODEL_ACKS, ack).result(10)
        self.vllm.spans = [
            {"version": str(version - 1), "start": 0, "end": 1},
            {"version": str(version), "start": 1, "end": 4},
        ]

    def close(self) -> None:
        self.stage.close()
        self.gateway.stop()
        assert self.fold is not None
        self.fold.close()
        self.engine.stop()
        self.worker.kill()
        self.bench.close()
