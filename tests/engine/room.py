"""One engine on a log in memory, with a fake vLLM and a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

from services.engine.acks import Acks
from services.engine.adapters import Adapters
from services.engine.engine import Engine
from services.engine.peers import Peers
from services.engine.server import Server
from services.engine.slot import Slot
from services.engine.swap import Swap
from services.engine.turns import Turns
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer
from tailrace.topics import MODEL_ACKS
from tailrace.weights.releases import Releases
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest
from tests.engine.fakes import FakeVllm
from tests.engine.models import MODEL, Trainer, tensors


class Clock:
    """Seconds that pass when a test says so, and a millisecond each time somebody looks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class FakeChild:
    """The process around a :class:`FakeVllm`: a start makes a new one."""

    def __init__(self, room: Room) -> None:
        self.room, self.starts, self.kills = room, 0, 0
        self.code: int | None = None

    def start(self) -> None:
        self.starts, self.code = self.starts + 1, None
        if self.starts > 1:
            self.room.vllm = FakeVllm(self.room.script)

    def exit_code(self) -> int | None:
        return self.code

    def last_words(self) -> str:
        return "ValueError: no"

    def stop(self) -> None:
        self.kills += 1

    kill = stop


class Room:
    """One engine, its log and its vLLM; ``beside``: on the log of another."""

    def __init__(
        self,
        folder: Path,
        *,
        supervised: bool = True,
        base: int = 0,
        adapters: bool = True,
        name: str = "engine-0",
        beside: Room | None = None,
    ) -> None:
        self.log = MemoryLog() if beside is None else beside.log
        self.trainer = Trainer(self.log) if beside is None else beside.trainer
        self.vllm = FakeVllm()
        self.script: dict[tuple[str, int], str] = {}
        """Of the vLLMs that are started from now on."""
        self.lacks: str | None = None
        """What its vLLM is missing."""
        self.clock = Clock() if beside is None else beside.clock
        self.child = FakeChild(self)
        self.producer = self.log.producer()
        self.points: list[str] = []
        self.folder = folder
        model = tensors(base)
        writer = Writer(self.producer, self.trainer.wire)
        admin = _Now(self)
        server = Server(
            self.child if supervised else None,
            lambda: self.vllm.healthy(),
            clock=self.clock,
            start_s=300,
            missing=lambda: self.lacks,
        )
        wait = self._wait
        acks = Acks(
            engine=name,
            model=MODEL,
            write=lambda record: writer.write(MODEL_ACKS, record),
            wall_ms=lambda: int(self.clock.now * 1000),
        )
        turns = Turns(name)
        self.subscriber = Subscriber(self.log, self.trainer.wire, model=MODEL)
        self.engine = Engine(
            store=Store(model, 0, digest(model)),
            subscriber=self.subscriber,
            releases=Releases(self.log, self.trainer.wire, model=MODEL),
            server=server,
            admin=admin,
            swap=Swap(admin, clock=self.clock, wait=wait, settle_s=5, step=self.points.append),
            slot=Slot([folder], name),
            turns=turns,
            peers=Peers(
                self.log,
                self.trainer.wire,
                turns,
                model=MODEL,
                wall_ms=lambda: int(self.clock.now * 1000),
            ),
            adapters=Adapters(
                admin,
                self.subscriber,
                acks,
                model=MODEL,
                folder=folder.with_name(f"{folder.name}-{name}-adapters"),
                clock=self.clock,
                enabled=adapters,
            ),
            acks=acks,
            clock=self.clock,
            step=self.points.append,
        )

    def close(self) -> None:
        self.subscriber.close()
        self.trainer.close()

    def _wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def turns(self, count: int = 1, seconds: float = 0.0) -> None:
        for _ in range(count):
            self.clock.now += seconds
            self.engine.turn(0)

    def acks(self) -> list[tuple[str, int, str | None]]:
        return [(a.state, a.version, a.reason) for a in self.trainer.acks()]

    def serves(self, number: int, version: int) -> bool:
        whole = (digest(tensors(number)), str(version))
        return (
            self.engine.reason() is None
            and (self.vllm.weights, self.vllm.label_) == whole
            and self.vllm.served[-1] == whole
            and not self.vllm.paused
            and not list(self.folder.iterdir())
        )


class _Now:
    """The admin API of whichever vLLM there is now."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._room.vllm, name)
