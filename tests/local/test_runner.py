"""The runner on a real Kafka and Redis, with stand-ins for the services."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import tomllib

from confluent_kafka.admin import AdminClient
import pytest

from services.local import entrance, processes
from services.local.runner import Runner, StartError, Stopped
from services.local.settings import Settings
from services.local.status import Event
from tailrace.log.kafka import KafkaLog
from tailrace.topics import LOCAL_SESSION_PARTITIONS, TOPICS, named
from tests.conftest import CACHE_DIR, TestBroker, TestRedis
from tests.local.until import lives, pids, until

ROOT = Path(__file__).parents[2]
FAMILY = Path(__file__).with_name("family.py")


def _runner(
    folder: Path, model: Path, events: list[Event], *flags: str, **fields: object
) -> Runner:
    settings = Settings(
        state_dir=folder / "state",
        model_dir=model,
        cache_dir=CACHE_DIR,
        services=("engine", "trainer"),
        check_resources=False,
        **fields,  # type: ignore[arg-type]
    )
    commands = {
        "engine": [sys.executable, str(FAMILY), "1", "engine", *flags],
        "trainer": [sys.executable, str(FAMILY), "0", "trainer"],
    }
    return Runner(settings, events.append, commands=commands)


@pytest.fixture(autouse=True)
def _pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"


@pytest.mark.kafka
def test_a_system_starts_recovers_stops_and_continues(
    tmp_path: Path, tiny_model: Path, _pids: Path
) -> None:
    events: list[Event] = []
    runner = _runner(tmp_path, tiny_model, events, prefix="t.")
    runner.start()
    addresses = runner.addresses
    assert addresses is not None

    topics = AdminClient({"bootstrap.servers": addresses.kafka}).list_topics(timeout=10).topics
    assert {named(t, "t."): t.partitions(LOCAL_SESSION_PARTITIONS) for t in TOPICS} == {
        name: len(topic.partitions) for name, topic in topics.items() if name.startswith("t.")
    }
    log = KafkaLog(addresses.kafka)
    producer = log.producer()
    producer.append("t.control", b"kept", key=b"m").result(20)
    producer.close()
    log.close()

    statuses = {status.name: status for status in runner.children()}
    assert list(statuses) == ["kafka", "redis", "engine", "trainer"]
    assert all(status.state == "running" and status.ready for status in statuses.values())
    assert statuses["engine"].last_line == "up engine"

    written = tomllib.loads(runner.settings_file.read_text())
    assert written["kafka"] == addresses.kafka and written["redis"] == addresses.redis
    assert written["engine"]["model_folder"] == str(tiny_model)
    assert (runner.settings_file.stat().st_mode & 0o777) == 0o600

    for name, count in (("trainer", 1), ("redis", 1), ("kafka", 1)):
        pid = statuses[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(
            lambda: statuses[name].restarts == count and statuses[name].ready,  # noqa: B023
            f"{name} again",
        )

    runner.stop()
    assert processes.marked(str(runner.state_dir)) == []
    assert not any(lives(pid) for family in pids(_pids).values() for pid in family)
    stopped = [e.name for e in events if e.report is not None and e.report.state == "ended"]
    assert stopped[-2:] == ["redis", "kafka"]

    again = _runner(tmp_path, tiny_model, events, prefix="t.")
    again.start()
    assert again.addresses == addresses
    log = KafkaLog(addresses.kafka)
    assert log.ends("t.control") == {0: 1}
    log.close()
    again.stop()


@pytest.mark.kafka
def test_existing_parts_are_taken_and_refused_settings_end_the_start(
    tmp_path: Path, tiny_model: Path, broker: TestBroker, redis: TestRedis, prefix: str
) -> None:
    events: list[Event] = []
    runner = _runner(
        tmp_path,
        tiny_model,
        events,
        "broken",
        kafka=broker.bootstrap,
        redis=redis.url,
        prefix=prefix,
    )
    with pytest.raises(StartError, match="engine refuses its settings:\na setting is wrong"):
        runner.start()
    assert processes.marked(str(runner.state_dir)) == []
    assert {e.name for e in events if e.report is not None} <= {"engine", "trainer"}


@pytest.mark.kafka
def test_a_start_can_be_stopped(
    tmp_path: Path, tiny_model: Path, broker: TestBroker, redis: TestRedis, prefix: str
) -> None:
    stopping = threading.Event()

    def on_event(event: Event) -> None:
        if event.report is not None:
            stopping.set()

    settings = Settings(
        state_dir=tmp_path / "state",
        model_dir=tiny_model,
        kafka=broker.bootstrap,
        redis=redis.url,
        prefix=prefix,
        services=("drift",),
    )
    commands = {"drift": [sys.executable, "-c", "import time; time.sleep(600)"]}
    runner = Runner(settings, on_event, stopping=stopping, commands=commands)
    with pytest.raises(Stopped):
        runner.start()
    assert processes.marked(str(runner.state_dir)) == []


class Up:
    """``python -m services.local up`` on a broker and a Redis that are there, without services."""

    def __init__(self, folder: Path, model: Path, broker: TestBroker, redis: TestRedis) -> None:
        self.state_dir = folder / "state"
        self.bootstrap = broker.bootstrap
        settings = folder / "settings.toml"
        settings.write_text(
            f'kafka = "{broker.bootstrap}"\nredis = "{redis.url}"\n'
            f'[local]\nservices = []\nmodel_dir = "{model}"\ncheck_resources = false\n'
        )
        self.command = [sys.executable, "-m", "services.local", "up"]
        self.command += ["--settings", str(settings), "--state-dir", str(self.state_dir)]

    def start(self) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None
        said: list[str] = []
        for line in iter(running.stdout.readline, ""):
            said.append(line)
            if "settings of all: " in line:
                break
        assert any("chat and feedback: http://127.0.0.1:" in line for line in said)
        assert any(f"records and feedback: {self.bootstrap} (Kafka)" in line for line in said)
        return running


@pytest.mark.kafka
def test_up_runs_once_per_state_directory_and_until_a_signal(
    tmp_path: Path, tiny_model: Path, broker: TestBroker, redis: TestRedis
) -> None:
    up = Up(tmp_path, tiny_model, broker, redis)
    for number in (signal.SIGTERM, signal.SIGINT):
        first = up.start()
        second = subprocess.run(up.command, cwd=ROOT, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"in use by another tailrace (pid {first.pid})" in second.stderr
        first.send_signal(number)
        output, errors = first.communicate(timeout=30)
        assert (first.returncode, errors) == (0, "") and "stopped" in output

    killed = up.start()
    killed.kill()
    killed.communicate()
    after = up.start()  # waits for the guardian of the killed one
    after.terminate()
    after.communicate(timeout=30)
    assert after.returncode == 0
    until(lambda: not processes.marked(str(up.state_dir)), "no process left")


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_shortens_the_stop_and_says_so(
    tmp_path: Path,
    tiny_model: Path,
    broker: TestBroker,
    redis: TestRedis,
    number: signal.Signals,
) -> None:
    up = Up(tmp_path, tiny_model, broker, redis)
    running = up.start()
    assert running.stdout is not None
    (guardian,) = processes.children(running.pid)
    os.kill(guardian, signal.SIGSTOP)  # so that the stop takes as long as the test wants
    lines = iter(running.stdout.readline, "")
    running.send_signal(number)
    assert any("stopping; Ctrl-C or SIGTERM again kills" in line for line in lines)
    running.send_signal(number)
    assert any("killing what still runs" in line for line in lines)
    os.kill(guardian, signal.SIGCONT)
    output, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, "") and "stopped" in output
    assert processes.marked(str(up.state_dir)) == []


def test_each_signal_asks_for_a_faster_end() -> None:
    before = [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]
    finish, abort, hurry = threading.Event(), threading.Event(), threading.Event()
    entrance.on_signals((finish, abort, hurry), (abort, hurry))
    try:
        seen = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
            seen.append([event.is_set() for event in (finish, abort, hurry)])
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert seen == [[True, False, False], [True, True, False], [True] * 3, [True] * 3]


def test_a_typo_in_the_settings_ends_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[local]\nkafka_prot = 9092\n")
    command = [sys.executable, "-m", "services.local", "up", "--settings", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "local.kafka_prot" in done.stderr
