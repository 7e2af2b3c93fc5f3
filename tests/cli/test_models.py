"""``tailrace models``: what it says, that an order waits for the engines, what an export holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers

from tailrace import cli, status, topics, versions
from tailrace.events import ModelAck, ModelUpdate
from tailrace.log import kafka
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.orders import Orders, Outcome
from tailrace.settings import Common
from tailrace.stream import Writer
from tailrace.weights import bundle, codec, folder, trust
from tailrace.weights.publisher import Publisher
from tailrace.weights.releases import Releases
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest, digest_files
from tailrace.wire import Wire
from tests.engine.models import MODEL
from tests.releases.scene import Scene


class Engine:
    """Serves what the log says at once, and acks it, unless it is told to be away or to refuse."""

    def __init__(self, scene: Scene, name: str) -> None:
        place = {"model": MODEL, "prefix": scene.prefix}
        self.name, self.serves = name, None
        self.away, self.refuses = False, False
        self._producer = scene.log.producer()
        self._writer = Writer(self._producer, Wire(), prefix=scene.prefix)
        self._subscriber = Subscriber(scene.log, Wire(), **place)
        self._releases = Releases(scene.log, Wire(), **place)

    def turn(self) -> None:
        if self.away:
            return
        self._subscriber.catch_up()
        self._releases.poll()
        served = self._subscriber.lineage.served(self._releases.newest)
        assert served is not None
        if served.version != self.serves:
            self.serves = served.version
            self.ack("refused" if self.refuses else "applied", served.version)

    def ack(self, state: str, version: int) -> None:
        record = ModelAck(
            engine=self.name, model=MODEL, version=version, event_time_ms=1, state=state
        )
        self._writer.write(topics.MODEL_ACKS, record).result(10)

    def close(self) -> None:
        self._subscriber.close()
        self._releases.close()
        self._producer.close()


class Play:
    """A scene, its engines, and a clock: each time somebody looks at it, everybody has a turn."""

    def __init__(self, log: Log, prefix: str = "") -> None:
        self.scene, self.prefix = Scene(log, prefix), prefix
        self.common = Common(model=MODEL, prefix=prefix)
        self.engines: list[Engine] = []
        self.now_s, self.later_ms = 0.0, 0
        self.desk: Any = None
        self.lines: list[str] = []

    def engine(self, name: str) -> Engine:
        self.engines.append(Engine(self.scene, name))
        self.engines[-1].turn()
        return self.engines[-1]

    def clock(self) -> float:
        self.now_s += 0.5
        if self.desk is not None:
            self.desk.turn(0.2 if self.prefix else 0.0)
        for engine in self.engines:
            engine.turn()
        return self.now_s

    def wall_ms(self) -> int:
        import time

        return time.time_ns() // 1_000_000 + self.later_ms

    def give(self, command: str, version: int | None = None, **more: Any) -> Outcome:
        with Orders(self.scene.log, self.common, clock=self.clock, wall_ms=self.wall_ms) as orders:
            return orders.give(command, version, say=self.lines.append, **more)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.scene.close()


@pytest.fixture
def play(log: Log, prefix: str, request: pytest.FixtureRequest) -> Iterator[Play]:
    made = Play(log, "" if isinstance(log, MemoryLog) else prefix)
    made.scene.versions(4)
    made.desk = made.scene.desk()
    yield made
    made.close()


@pytest.fixture
def memory() -> Iterator[Play]:
    made = Play(MemoryLog())
    made.scene.versions(4)
    made.desk = made.scene.desk()
    yield made
    made.close()


def test_a_rollback_waits_until_every_engine_is_there(play: Play) -> None:
    one, two = play.engine("one"), play.engine("two")
    assert (one.serves, two.serves) == (3, 3)
    outcome = play.give("rollback", 1, reason="too long", principal="ops", timeout_s=30)
    assert outcome.ok, outcome
    assert outcome.release is not None
    assert (outcome.release.live, outcome.release.withdrawn_to) == (1, 3)
    assert [(e.engine, e.state, e.version) for e in outcome.engines] == [
        ("one", "applied", 1),
        ("two", "applied", 1),
    ]
    assert any("in force: goes on from version 1" in line for line in play.lines), play.lines
    assert any("engine two: applied version 1" in line for line in play.lines)


def test_a_pin_and_its_end(memory: Play) -> None:
    engine = memory.engine("one")
    assert memory.give("pin", 0).ok and engine.serves == 0
    assert memory.give("follow").ok and engine.serves == 3
    assert memory.give("rollback", 2).ok and engine.serves == 2
    assert memory.give("pin", 3).ok and engine.serves == 3
    assert memory.give("follow").ok and engine.serves == 2, "what was rolled back stays so"


def test_a_version_that_is_not_there_is_never_ordered(memory: Play) -> None:
    with pytest.raises(ValueError, match="no version 9 of tiny: the newest is 3"):
        memory.give("rollback", 9)
    assert memory.scene.log.ends(topics.CONTROL.name) == {0: 0}


def test_a_refusal_is_told(memory: Play) -> None:
    first = memory.scene.trainer.publisher.version(0)
    assert first is not None and first.chunks is not None
    last = max(first.chunks.offsets)
    memory.scene.log.delete_before(topics.MODEL_CHUNKS.name, {0: last + 1})
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "bytes are deleted" in (outcome.problem or "")


def test_without_a_releases_service_the_order_stands(memory: Play) -> None:
    memory.engine("one")
    memory.desk = None
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "no releases service answered" in (outcome.problem or "")
    assert "control/0/0" in (outcome.problem or "")
    memory.scene.desk().turn(0)
    assert memory.scene.releases()[0].live == 1


def test_a_later_order_ends_the_wait_unless_it_is_refused(memory: Play) -> None:
    memory.engine("one").away = True
    memory.scene.order("pin", 77)  # it comes first, and is refused
    order = memory.scene.order
    real = memory.clock
    given = []

    def clock() -> float:
        if memory.scene.releases() and len(given) < 2:
            given.append(order("pin", 88) if not given else order("pin", 0))
        return real()

    memory.clock = clock  # type: ignore[method-assign]
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and outcome.release is not None and outcome.release.live == 1
    assert outcome.problem == "another order came after it: version 0 is pinned"


def test_an_engine_that_does_not_come_is_named(memory: Play) -> None:
    memory.engine("one")
    memory.engine("two").away = True
    outcome = memory.give("rollback", 1, timeout_s=5)
    assert not outcome.ok and "two (applied 3)" in (outcome.problem or "")
    assert "one" not in (outcome.problem or "").split()


def test_an_engine_that_refuses_ends_the_wait(memory: Play) -> None:
    memory.engine("one").refuses = True
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "one (refused 1)" in (outcome.problem or "")
    assert outcome.seconds < 10


def test_an_engine_that_was_not_heard_for_a_minute_is_not_waited_for(memory: Play) -> None:
    memory.engine("gone").away = True
    memory.later_ms = 61_000
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "no engine was heard" in (outcome.problem or "")
    assert outcome.release is not None and [e.stale for e in outcome.engines] == [True]


def test_what_is_listed(memory: Play) -> None:
    memory.engine("one")
    memory.give("rollback", 1)
    found = versions.gather(memory.scene.log, memory.common)
    assert (found.served, found.trained) == (1, 1)
    assert [(v.version, v.base, v.kind, v.withdrawn) for v in found.versions] == [
        (0, None, "keyframe", False),
        (1, 0, "delta", False),
        (2, 1, "delta", True),
        (3, 2, "delta", True),
    ]
    assert found.versions[1].engines == ["one"]
    memory.give("pin", 3)
    found = versions.gather(memory.scene.log, memory.common)
    assert (found.served, found.trained) == (3, 1)
    seen = status.gather(memory.scene.log, memory.common)
    assert (seen["versions"]["served"], seen["versions"]["trained"]) == (3, 1)
    assert seen["engines"]["one"]["version"] == 3 and not seen["engines"]["one"]["stale"]
    assert any("version 3 is pinned; served is 3" in line for line in status.in_words(seen))
    lines = versions.in_words(found, limit=2)
    assert "version 3 is pinned; served is 3, trained on is 1" in lines[0]
    assert len(lines) == 2 + 2 + 1
    assert "withdrawn <- one" in lines[3] and lines[4].startswith("engine one: applied version 3")
    assert (
        "may be gone"
        in versions.in_words(
            versions.gather(memory.scene.log, memory.common, now_ms=memory.wall_ms() + 61_000)
        )[-1]
    )


@pytest.fixture
def published(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[MemoryLog, list[ModelUpdate]]]:
    """The tiny model and a step of it on a log that the command line finds."""
    log = MemoryLog()
    log.create(topics.TOPICS, session_partitions=1)
    key = tmp_path / "signer"
    trust.new_key(key)
    publisher = Publisher(log, Wire(), model=MODEL, signing_key=key)
    tensors, files = folder.read(tiny_model), folder.read_files(tiny_model)
    first = ModelUpdate(
        model=MODEL,
        version=0,
        created_ms=1,
        digest=digest(tensors),
        config_digest=digest_files(files),
    )
    updates = [publisher.publish(first, codec.encode_keyframe(tensors, files), [], [])]
    name = next(name for name in tensors if "mlp" in name)
    bits = tensors[name].bits.copy()
    bits[:7] += 1
    after = tensors | {name: type(tensors[name]).of("bfloat16", tensors[name].shape, bits)}
    second = ModelUpdate(
        model=MODEL,
        version=1,
        created_ms=2,
        base_version=0,
        base_digest=first.digest,
        digest=digest(after),
    )
    updates.append(publisher.publish(second, codec.encode_delta(tensors, after), [], []))
    publisher.close()
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: log)
    monkeypatch.chdir(tmp_path)
    yield log, updates


Run = Callable[..., int]


@pytest.fixture
def run(published: object) -> Run:
    return lambda *arguments: cli.main(["models", *arguments, "--model", MODEL])


def test_an_export_is_a_folder_that_transformers_loads(
    run: Run, published: tuple[MemoryLog, list[ModelUpdate]], tiny_model: Path, tmp_path: Path
) -> None:
    assert run("export", "1", "out") == 0
    assert digest(folder.read(tmp_path / "out")) == published[1][1].digest
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    changed = sum(
        int((a != b).sum())
        for a, b in zip(model.state_dict().values(), base.state_dict().values(), strict=True)
    )
    assert changed == 7 and model.dtype == torch.bfloat16
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    was = transformers.AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer("hello").input_ids == was("hello").input_ids


def test_an_export_never_overwrites(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    assert run("export", "1", "mine") == 1
    assert "is there already" in capsys.readouterr().err
    assert run("export", "7", "out") == 1
    assert not (tmp_path / "out").exists()


def test_a_signed_export_is_verified_by_the_tool_of_its_format(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL", reason="model-signing imports it and does not ask for it")
    key, public = tmp_path / "ec.key", tmp_path / "ec.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(make, check=True, capture_output=True)
    shown = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    subprocess.run(shown, check=True, capture_output=True)
    assert run("export", "1", "out", "--sign", str(key)) == 0
    bundle.verify(tmp_path / "out", public)
    tool = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", "out"]
    tool += ["--signature", "out.sig", "--public_key", str(public)]
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out" / "config.json").write_text("{}")
    assert subprocess.run(tool, cwd=tmp_path, capture_output=True).returncode != 0


def test_verify_builds_the_version_and_holds_a_folder_against_it(
    run: Run, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "1") == 0
    said = capsys.readouterr().out
    assert "built from 2 updates" in said and "signatures were not looked at" in said
    assert run("verify", "1", "--key", str(tmp_path / "signer.pub")) == 0
    assert "signed by a trusted key" in capsys.readouterr().out
    assert run("verify", "0", "--folder", str(tiny_model)) == 0
    assert run("verify", "1", "--folder", str(tiny_model)) == 1
    assert "digest" in capsys.readouterr().err


def test_verify_refuses_a_stranger_and_broken_bytes(
    run: Run,
    published: tuple[MemoryLog, list[ModelUpdate]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trust.new_key(tmp_path / "other")
    assert run("verify", "1", "--key", str(tmp_path / "other.pub")) == 1
    assert "none that these keys signed" in capsys.readouterr().err
    log, updates = published
    chunks = updates[1].chunks
    assert chunks is not None
    entry = log._topics[topics.MODEL_CHUNKS.name][0].entries[chunks.offsets[0]]
    value = bytearray(entry.record.value or b"")
    value[-1] ^= 1
    entry.record = type(entry.record)(
        **{f: getattr(entry.record, f) for f in entry.record.__struct_fields__ if f != "value"},
        value=bytes(value),
    )
    assert run("verify", "1") == 1
    assert "corrupt" in capsys.readouterr().err
    assert run("verify", "0") == 0


def test_the_list_by_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "follows the newest version; served is 1" in lines[0] and len(lines) == 4
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [v["version"] for v in found["versions"]] == [0, 1]
    assert run("rollback", "--to", "5") == 1
    assert "no version 5" in capsys.readouterr().err


def test_options_before_the_action_count(published: object) -> None:
    arguments = cli.parser().parse_args(["models", "--kafka", "h:1", "rollback", "--to", "3"])
    assert (arguments.kafka, arguments.version, arguments.data) == ("h:1", 3, "skip")
    assert (arguments.timeout, arguments.reason, arguments.json) == (90.0, None, False)
