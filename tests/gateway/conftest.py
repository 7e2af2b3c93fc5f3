"""A gateway over a log in memory and a stand-in for vLLM, served on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
import time
from typing import Any

import httpx
import openai
import pytest

from services.gateway.build import build
from services.gateway.settings import Settings
from tailrace import stream, topics
from tailrace.errors import LogError
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.topics import Topic
from tailrace.wire import Wire
from tests.gateway.fakevllm import FakeVllm, Served, wait_until

MODEL = "smollm2-135m-instruct"


class FragileLog(MemoryLog):
    """A log in memory that can be down: then nothing can be asked or appended."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    def _partitions(self, topic: str) -> Any:
        if self.down:
            raise LogError(f"{topic}: no broker")
        return super()._partitions(topic)


def read(log: Log, topic: Topic, prefix: str = "") -> list[Any]:
    """All records of a topic."""
    decoder = stream.Decoder(log, Wire(), prefix=prefix)
    return [decoder.decode(r) for r in stream.read_all(log, topics.named(topic, prefix))]


def wait_for(log: Log, topic: Topic, count: int, prefix: str = "") -> list[Any]:
    """The records of a topic once there are so many."""
    wait_until(lambda: len(read(log, topic, prefix)) >= count, f"{count} {topic.name}")
    return read(log, topic, prefix)


class Running:
    """A served gateway and its parts."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.gateway, self.fold = build(
            settings, now_ms=lambda: time.time_ns() // 1_000_000, log=log
        )
        self.served = Served(self.gateway.app())
        self.url = self.served.url
        self.http = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)
        self.openai = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="sk-test",
            max_retries=0,
            http_client=httpx.Client(timeout=30.0, trust_env=False),
        )

    def records(self, topic: Topic, count: int) -> list[Any]:
        return wait_for(self.log, topic, count)

    def on_kafka(self) -> None:
        """Wait until records go straight to the log."""
        wait_until(lambda: self.http.get("/readyz").json()["records"] == "kafka", "kafka")

    def chat(self, **changes: Any) -> Any:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        return self.openai.chat.completions.create(**(asked | changes))

    def stop(self) -> None:
        self.http.close()
        self.openai.close()
        self.served.stop()
        if self.fold is not None:
            self.fold.close()


@pytest.fixture
def log() -> FragileLog:
    log = FragileLog()
    log.create(topics.TOPICS, session_partitions=4)
    return log


@pytest.fixture
def vllm() -> FakeVllm:
    return FakeVllm()


class Delegate:
    """Serves the stand-in of the test that runs: starting a server for each takes a while."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def engine_server() -> Iterator[tuple[Delegate, str]]:
    delegate = Delegate()
    served = Served(delegate, lifespan="off")
    yield delegate, served.url
    served.stop()


@pytest.fixture
def engine_url(vllm: FakeVllm, engine_server: tuple[Delegate, str]) -> str:
    delegate, url = engine_server
    delegate.app = vllm.app
    return url


@pytest.fixture
def start(
    tmp_path: Path, tiny_model: Path, engine_url: str, log: FragileLog
) -> Iterator[Callable[..., Running]]:
    """Start a gateway with changed settings; ended with the test."""
    running: list[Running] = []

    def start(**changes: Any) -> Running:
        values = {
            "state_dir": tmp_path,
            "model_dir": tiny_model,
            "engine_url": engine_url,
            "engine_wait_s": 5.0,
            "learn_default": True,
        }
        own = changes.pop("log", log)
        running.append(Running(Settings(**(values | changes)), own))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def gateway(start: Callable[..., Running]) -> Running:
    return start()
