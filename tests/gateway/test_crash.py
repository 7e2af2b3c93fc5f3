"""kill -9 and SIGTERM on a real process over a real broker: a 202 is kept, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from services.local.ports import free_port
from tailrace import topics
from tailrace.events import Coordinates, Receipt
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer
from tailrace.wire import Wire
from tests.gateway.conftest import MODEL, read, wait_for
from tests.gateway.fakevllm import wait_until

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:9"


class Child:
    """A gateway process on one state directory; it can be started again and again."""

    def __init__(self, folder: Path, redis: str, **values: object) -> None:
        self.folder = folder
        self.redis = redis
        self.port = free_port()
        self.values = values
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=30.0, trust_env=False
        )

    def start(self, module: str, *arguments: str, kafka: str, prefix: str) -> None:
        gateway = {"port": self.port, "ack_s": 1.0, "learn_default": True, **self.values}
        lines = [f'kafka = "{kafka}"', f'prefix = "{prefix}"', f'state_dir = "{self.folder}"']
        lines += [f'redis = "{self.redis}"', "[gateway]"]
        for name, value in gateway.items():
            shown = str(value).lower() if isinstance(value, int | float) else f'"{value}"'
            lines.append(f"{name} = {shown}")
        file = self.folder / "settings.toml"
        file.write_text("\n".join(lines))
        named = [str(file)] if module.startswith("tests.") else ["--settings", str(file)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *named, *arguments],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")},
        )
        wait_until(self.answers, "the gateway")

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def records_go_to(self, where: str) -> None:
        wait_until(lambda: self.http.get("/readyz").json()["records"] == where, where)

    def chat(self) -> httpx.Response:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        return self.http.post("/v1/chat/completions", json=asked)

    def say(self, answer: str, number: int) -> httpx.Response | None:
        """The response; None when the gateway died over it."""
        said = {"metric_name": "stars", "value": number, "inference_id": answer}
        try:
            return self.http.post("/v1/feedback", json=said | {"feedback_id": f"f{number}"})
        except httpx.TransportError:
            return None

    def outcome(self, feedback_id: str) -> str:
        return self.http.get(f"/v1/feedback/{feedback_id}").json()["outcome"]

    def ended(self) -> int:
        assert self.process is not None
        return self.process.wait(30)

    def close(self) -> None:
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def child(tmp_path: Path, tiny_model: Path, engine_url: str, redis) -> Iterator[Child]:
    child = Child(tmp_path, redis.url, model_dir=tiny_model, engine_url=engine_url)
    yield child
    child.close()


@pytest.fixture
def kafka(broker, prefix) -> KafkaLog:
    log = KafkaLog(broker.bootstrap)
    log.create(topics.TOPICS, prefix=prefix, session_partitions=4)
    return log


@pytest.mark.parametrize("point", [1, 2, 3])
@pytest.mark.parametrize("with_kafka", [True, False])
def test_killed_over_a_feedback(child, kafka, broker, prefix, point, with_kafka):
    where = broker.bootstrap if with_kafka else NOBODY
    child.start("tests.gateway.victim", str(point), kafka=where, prefix=prefix)
    child.records_go_to("kafka" if with_kafka else "spool")
    answer = child.chat().json()["id"]
    response = child.say(answer, 7)
    assert child.ended() == -signal.SIGKILL
    accepted = response is not None and response.status_code == 202
    assert accepted or point < 3
    child.start("tests.gateway.victim", "0", kafka=broker.bootstrap, prefix=prefix)
    child.records_go_to("kafka")
    if point > 1:
        (record,) = wait_for(kafka, topics.FEEDBACK, 1, prefix)
        assert (record.number, record.interaction_id) == (7, answer)
    # What was not promised the client sends again, under the same id.
    assert child.say(answer, 7).status_code == 202
    ids = [record.feedback_id for record in wait_for(kafka, topics.FEEDBACK, 1, prefix)]
    assert set(ids) == {f"{answer}!f7"}
    # And the fold of the gateway that came after tells what became of it.
    writer = Writer(kafka.producer(), Wire(), prefix=prefix)
    source = Coordinates(topic=topics.FEEDBACK.name, partition=0, offset=0)
    receipt = Receipt(
        stage="rewards", subject_id=ids[0], event_time_ms=1, outcome="joined", source=source
    )
    writer.write(topics.RECEIPTS, receipt).result(10.0)
    wait_until(lambda: child.outcome(ids[0]) == "joined", "the fold")
    writer.producer.close()


def test_killed_while_the_spool_drains(child, kafka, broker, prefix):
    child.start("tests.gateway.victim", "0", kafka=NOBODY, prefix=prefix)
    answer = child.chat().json()["id"]
    for number in range(20):
        assert child.say(answer, number).status_code == 202
    child.process.kill()
    assert child.ended() == -signal.SIGKILL
    with pytest.raises((AssertionError, httpx.TransportError)):
        child.start("tests.gateway.victim", "4", kafka=broker.bootstrap, prefix=prefix)
        child.records_go_to("kafka")
    assert child.ended() == -signal.SIGKILL
    child.start("tests.gateway.victim", "0", kafka=broker.bootstrap, prefix=prefix)
    child.records_go_to("kafka")
    records = read(kafka, topics.FEEDBACK, prefix)
    assert list(dict.fromkeys(record.number for record in records)) == list(range(20))
    assert len(read(kafka, topics.OUTPUTS, prefix)) >= 1


def test_the_broker_dies_and_comes_back(child, kafka, broker, prefix):
    child.start("services.gateway", kafka=broker.bootstrap, prefix=prefix)
    child.records_go_to("kafka")
    answer = child.chat().json()["id"]
    assert child.say(answer, 0).status_code == 202
    broker.kill()
    try:
        assert child.chat().status_code == 200
        for number in range(1, 6):
            assert child.say(answer, number).status_code == 202
        child.records_go_to("spool")
    finally:
        broker.start()
        broker.wait_ready()
    child.records_go_to("kafka")
    records = wait_for(kafka, topics.FEEDBACK, 6, prefix)
    assert sorted({record.number for record in records}) == list(range(6))
    assert len(wait_for(kafka, topics.OUTPUTS, 2, prefix)) >= 2


def test_sigterm_lets_requests_end(child, kafka, broker, prefix, vllm):
    child.start("services.gateway", kafka=broker.bootstrap, prefix=prefix)
    child.records_go_to("kafka")
    vllm.gate = threading.Event()
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(child.chat()))
    asking.start()
    wait_until(lambda: vllm.asked, "the request")
    child.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not connects(child.port), "the port to close")
    vllm.gate.set()
    asking.join(20)
    assert answers[0].status_code == 200
    assert child.ended() == 0
    (output,) = wait_for(kafka, topics.OUTPUTS, 1, prefix)
    assert output.untrainable is None


def connects(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=2.0)
    except httpx.TransportError:
        return False
    return True


def test_settings_that_cannot_work(tmp_path, tiny_model):
    for lines, word in (
        ('[gateway]\nmodel_dir = "/nowhere"', "gateway.model_dir"),
        (f'[gateway]\nmodel_dir = "{tiny_model}"\nprot = 1', "gateway.prot"),
        (f'[gateway]\nmodel_dir = "{tiny_model}"\nkeys = {{ sk = "A B" }}', "A B"),
    ):
        file = tmp_path / "settings.toml"
        file.write_text(f'state_dir = "{tmp_path}"\n{lines}')
        ended = subprocess.run(
            [sys.executable, "-m", "services.gateway", "--settings", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 2 and word in ended.stderr
