"""Two engines with their vLLMs on a real broker: requests all along, kills, versions that go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import signal
import subprocess

import pytest

from services.local.ports import free_port
from tailrace import topics
from tailrace.events import ModelAck, ModelUpdate
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights import codec
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.engine.programs import answers, run, until
from tests.engine.real import TOKENS, Models, ask
from tests.engine.users import Users

LIMIT_S = 150.0
"""For vLLM to come up, on a machine that does other things too."""


class Member:
    """One engine process, its vLLM, and those who ask it."""

    def __init__(self, name: str, folder: Path, settings: str, model: Path, core: int) -> None:
        self.name, self.port, ready_port = name, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = f"http://127.0.0.1:{ready_port}/readyz"
        self.words = folder / f"{name}.log"
        self._file = folder / f"{name}.toml"
        self._file.write_text(
            f'{settings}[engine]\nid = "{name}"\nmodel_folder = "{model}"\ncores = "{core}"\n'
            f"vllm_port = {self.port}\nmetrics_port = {ready_port}\nkv_cache_mib = 64\n"
            "serving_ack_s = 2\nturn_s = 20\n"
        )

    def start(self) -> None:
        self.process = run("services.engine", "--settings", str(self._file), log=self.words)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ready(self) -> bool:
        return answers(self._ready)

    def vllm_pid(self) -> int:
        lines = [line for line in self.words.read_text().splitlines() if "vllm started" in line]
        return int(lines[-1].partition("pid=")[2].split()[0].strip('",}'))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@pytest.fixture
def fleet(broker, prefix: str, tmp_path: Path, models: Models) -> Iterator[list[Member]]:  # type: ignore[no-untyped-def]
    settings = (
        f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nmodel = "tiny"\n'
        f'state_dir = "{tmp_path}"\n'
    )
    cores = sorted(os.sched_getaffinity(0))
    members = [
        Member(f"engine-{n}", tmp_path, settings, models.folder, cores[n % len(cores)])
        for n in range(2)
    ]
    for member in members:
        member.start()
    yield members
    for member in members:
        member.stop()


@pytest.mark.kafka
@pytest.mark.e2e
def test_updates_kills_and_no_failed_request(
    broker,  # type: ignore[no-untyped-def]
    prefix: str,
    fleet: list[Member],
    models: Models,
) -> None:
    log, wire = KafkaLog(broker.bootstrap), Wire()
    log.create(topics.TOPICS, prefix=prefix, session_partitions=1)
    pair = (models.base, models.other)
    publisher = Publisher(log, wire, model="tiny", prefix=prefix)
    first, second = fleet

    def publish() -> int:
        head = publisher.head()
        version = publisher.next_version
        tensors = pair[version % 2]
        manifest = ModelUpdate(
            model="tiny",
            version=version,
            created_ms=1,
            digest=digest(tensors),
            base_version=head and head.version,
            base_digest=head and head.digest,
        )
        if head is None or version % 4 == 0:
            stream = codec.encode_keyframe(tensors, {})
        else:
            stream = codec.encode_delta(pair[head.version % 2], tensors)
        publisher.publish(manifest, stream, [], [])
        return version

    def acks(state: str) -> list[ModelAck]:
        decoder = Decoder(log, wire, prefix=prefix)
        records = read_all(log, named(topics.MODEL_ACKS, prefix))
        found: list[ModelAck] = [decoder.decode(record) for record in records]  # type: ignore[misc]
        return [ack for ack in found if ack.state == state]

    def applied(version: int, *members: Member) -> Callable[[], bool]:
        names = {member.name for member in members}
        return lambda: names <= {a.engine for a in acks("applied") if a.version == version}

    publish()
    for member in fleet:
        until(member.ready, member.words, LIMIT_S)
    with Users(first.url, many=3, count=60) as users:
        with Users(second.url, many=3, count=60) as others:
            for _ in range(5):
                version = publish()
                until(applied(version, first, second), first.words)
        assert not others.failed, others.failed
        # One engine is killed, and its vLLM with it. Versions and the other one go on.
        second.kill()
        for _ in range(2):
            version = publish()
            until(applied(version, first), first.words)
        second.start()
        version = publish()
        until(second.ready, second.words, LIMIT_S)
        until(applied(version, first, second), second.words)
        with Users(second.url, many=3, count=60) as again:
            version = publish()
            until(applied(version, first, second), second.words)
        assert not again.failed, again.failed
    assert not users.failed, users.failed
    assert users.labels >= {"2", "3"}
    assert any(len(answer.spans) > 1 for answer in users.answers), "some spanned an update"
    assert not acks("refused")
    # Nobody paused before the one ahead of it was through.
    times = {(a.version, a.engine): a for a in acks("applied") if a.pause_ms is not None}
    both = [v for v in range(1, 6) if (v, "engine-0") in times and (v, "engine-1") in times]
    assert both == list(range(1, 6))
    for v in both:
        one, other = times[v, "engine-0"], times[v, "engine-1"]
        assert other.pause_ms is not None
        assert other.event_time_ms - other.pause_ms >= one.event_time_ms - 1
    # vLLM alone is killed: the engine starts another, with the newest version before it is ready.
    os.kill(first.vllm_pid(), signal.SIGKILL)
    until(lambda: not first.ready(), first.words)
    newest = publish()
    until(first.ready, first.words, LIMIT_S)
    assert ask(first.url, TOKENS, 1).spans[0][0] == str(newest)
    publisher.close()
    log.close()
