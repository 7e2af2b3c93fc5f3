"""Three engines with their vLLMs on a real broker: requests all along, kills, versions that go on.

The first is attached to a vLLM that somebody else keeps; the others run their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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
from tests.engine.real import TOKEN, TOKENS, Models, RealVllm, ask, core
from tests.engine.users import Users

LIMIT_S = 150.0
"""For vLLM to come up, on a machine that does other things too."""


class Member:
    """One engine process, its vLLM, and those who ask it."""

    def __init__(self, name: str, url: str, folder: Path, settings: str) -> None:
        self.name, self.url, ready_port = name, url, free_port()
        self._ready = f"http://127.0.0.1:{ready_port}/readyz"
        self.words = folder / f"{name}.log"
        self._file = folder / f"{name}.toml"
        self._file.write_text(
            f'{settings}id = "{name}"\nmetrics_port = {ready_port}\n'
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
def fleet(  # type: ignore[no-untyped-def]
    broker, prefix: str, tmp_path: Path, vllm: RealVllm, models: Models
) -> Iterator[list[Member]]:
    settings = (
        f'kafka = "{broker.bootstrap}"\nprefix = "{prefix}"\nmodel = "tiny"\n'
        f'state_dir = "{tmp_path}"\n[engine]\nmodel_folder = "{models.folder}"\n'
    )
    attached = f'{settings}vllm_url = "{vllm.url}"\nadmin_token = "{TOKEN}"\n'
    members = [Member("engine-0", vllm.url, tmp_path, attached)]
    for number in (1, 2):
        port = free_port()
        own = f'{settings}cores = "{core(number)}"\nvllm_port = {port}\nkv_cache_mib = 64\n'
        members.append(Member(f"engine-{number}", f"http://127.0.0.1:{port}", tmp_path, own))
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
    first, second, third = fleet

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

    def update(*members: Member) -> int:
        """Publish one, and wait until these have it."""
        version, names = publish(), {member.name for member in members}
        until(
            lambda: names <= {a.engine for a in acks("applied") if a.version == version},
            members[-1].words,
        )
        return version

    publish()
    for member in fleet:
        until(member.ready, member.words, LIMIT_S)
    with Users(first.url, many=2, count=60) as users:
        with (
            Users(second.url, many=2, count=60) as others,
            Users(third.url, many=2, count=60) as again,
        ):
            together = [update(*fleet) for _ in range(5)]
        # One engine is killed, and its vLLM with it; of another one vLLM alone. Versions and the
        # first go on.
        second.kill()
        os.kill(third.vllm_pid(), signal.SIGKILL)
        until(lambda: not third.ready(), third.words)
        for _ in range(2):
            update(first)
        second.start()
        newest = update(first)
        for member in (second, third):
            until(member.ready, member.words, LIMIT_S)
            assert ask(member.url, TOKENS, 1).spans[0][0] == str(newest)
        with Users(second.url, many=1, count=60) as back, Users(third.url, many=1, count=60) as up:
            update(*fleet)
    assert not [each.failed for each in (users, others, again, back, up) if each.failed]
    assert users.labels >= {str(version) for version in together[1:]}
    assert any(len(answer.spans) > 1 for answer in users.answers), "some spanned an update"
    assert not acks("refused")
    # Nobody paused before the one ahead of it was through.
    times = {(a.version, a.engine): a for a in acks("applied") if a.pause_ms is not None}
    for version in together:
        for one, other in pairwise(times[version, member.name] for member in fleet):
            assert other.pause_ms is not None
            assert other.event_time_ms - other.pause_ms >= one.event_time_ms - 1
    publisher.close()
    log.close()
