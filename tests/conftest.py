"""Real parts for every test folder: a Kafka broker, a log, a Redis, a tiny model.

``broker`` and ``redis_server`` live as long as the test run; ``prefix`` keeps tests apart on the
one broker, ``redis`` is emptied before each test. Processes started here die with the test run.
"""

from __future__ import annotations

from collections.abc import Iterator
import ctypes
import os
from pathlib import Path
import signal
import subprocess
import uuid

import hypothesis
import pytest

from services.local import broker as kafka
from services.local import jars
from services.local import redis as redis_part
from services.local.ports import free_port
from tailrace.log.base import Log

CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailrace"
_PR_SET_PDEATHSIG = 1

# How long an example takes is the machine's matter; each test has a bound of its own.
hypothesis.settings.register_profile("tailrace", deadline=None)
hypothesis.settings.load_profile("tailrace")

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Each process that a test starts would compile all it imports: most of a vLLM's start.
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(CACHE_DIR / "bytecode"))


class Process:
    """A server of the test run: its command line, its log, kill and start again."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.command = command
        self.log = log
        self.start()

    def start(self) -> None:
        libc = ctypes.CDLL(None)
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self.child.poll() is None

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def stop(self, timeout_s: float = 20.0) -> None:
        self.child.terminate()
        try:
            self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()


class TestBroker(Process):
    """The embedded broker; ``bootstrap`` is what clients take."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.part = kafka.Broker(
            jars.prepare(CACHE_DIR, print), folder, port=free_port(), controller_port=free_port()
        )
        self.bootstrap = self.part.bootstrap
        self.part.prepare()
        super().__init__(self.part.command(), folder / "broker.log")
        self.wait_ready()

    def wait_ready(self) -> None:
        try:
            kafka.wait_ready(self.bootstrap, 60.0, self.alive)
        except Exception as error:
            raise RuntimeError(f"{error}\n{self.log.read_text()[-4000:]}") from error


class TestRedis(Process):
    """The embedded Redis; ``url`` is what clients take."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.part = redis_part.Redis(folder, port=free_port())
        self.url = self.part.url
        command = self.part.command()
        super().__init__(command, folder / "redis.log")
        redis_part.wait_ready(self.url, 20.0, self.alive)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestBroker]:
    """One real Kafka broker for the whole run: ``broker.bootstrap``."""
    server = TestBroker(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[TestBroker]:
    """One that a test may kill."""
    (tmp_path / "kafka").mkdir()
    server = TestBroker(tmp_path / "kafka")
    yield server
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """The two logs, one at a time: a fresh one in memory, then the test run's broker."""
    if request.param == "memory":
        from tailrace.log.memory import MemoryLog

        yield MemoryLog()
        return
    from tailrace.log.kafka import KafkaLog

    kafka_log = KafkaLog(request.getfixturevalue("broker").bootstrap)
    yield kafka_log
    kafka_log.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRedis]:
    """One real Redis for the whole run."""
    server = TestRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: TestRedis) -> TestRedis:
    """The run's Redis, emptied: ``redis.url``."""
    import redis as client_library

    with client_library.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: a random two-layer bfloat16 Llama and a byte-level tokenizer."""
    from tests import tinymodel

    return tinymodel.write(tmp_path_factory.mktemp("model") / "tiny")
