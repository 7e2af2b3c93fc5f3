"""Checkpoints on a disk that fails and in folders that others have used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
import os
from pathlib import Path
import shutil
import threading

from hypothesis import given, settings
from hypothesis import strategies as st
import msgspec
import pytest
import torch

from services.trainer import checkpoint
from services.trainer.checkpoint import Checkpoints, Meta
from services.trainer.known import Known, Memory
from services.trainer.metrics import CHECKPOINT_FAILURES, CHECKPOINTS
from services.trainer.snapshot import Snapshot
from tailrace.errors import SettingsError
from tests.trainer.conftest import Mill
from tests.trainer.traffic import trajectory

STATE = {"master.a": torch.arange(4.0)}


def meta(version: int, digest: str = "d") -> Meta:
    return Meta(
        version=version,
        digest=digest * 16,
        step=version,
        updates=version,
        baselines={},
        memory=Memory(),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Checkpoints]:
    made = Checkpoints(tmp_path / "own", kept=2)
    yield made
    made.close()


def written(store: Checkpoints, version: int, digest: str = "d") -> None:
    store.write(meta(version, digest), STATE)
    store.wait()


def there(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "own"))


def failures() -> float:
    return CHECKPOINTS.labels("failed")._value.get()


def failed(reason: str) -> float:
    return CHECKPOINT_FAILURES.labels(reason)._value.get()


def test_a_failed_write_is_counted_and_swept_and_the_next_one_is_written(
    store: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(store, 1)

    def full(*arguments: object) -> None:
        raise OSError("no space")

    before = failures()
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "_sync", full)
        written(store, 2)
    assert failures() == before + 1 and store.version == 1
    assert there(tmp_path) == ["v00000001-dddddddddddddddd"]
    written(store, 3)
    assert store.version == 3 and len(there(tmp_path)) == 2


def test_a_trainer_whose_checkpoint_failed_stops_cleanly_and_with_one(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError("no space")

    mill.put(*(trajectory(n) for n in range(8)))
    trainer = mill.trainer(checkpoint_versions=1)
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "_sync", full)
        assert trainer.turn(0.0)
        trainer._checkpoints.wait()
    trainer.stop()
    trainer.close()
    mill.forget(trainer)
    assert mill.trainer().recovery.checkpoint_version == 1


def test_a_truncated_archive_under_a_good_seal_is_passed_over(
    store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(snapshot: Snapshot, path: Path) -> str:
        path.write_bytes(b"\x08")
        return sha256(b"\x08").hexdigest()

    written(store, 1)
    with monkeypatch.context() as broken:
        broken.setattr(Snapshot, "write", cut)
        written(store, 2)
    found = store.newest([(1, "d" * 16), (2, "d" * 16)])
    assert found is not None and found[0].version == 1


def flipped(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def cut(path: Path, at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def gone(path: Path, at: float) -> None:
    path.unlink()


def a_folder(path: Path, at: float) -> None:
    path.unlink()
    path.mkdir()


def older_program(path: Path, at: float) -> None:
    """A whole checkpoint, of what had other fields."""
    (path.parent / "meta.json").write_bytes(text := b'{"version": 2}')
    (path.parent / "seal").write_text(sha256(text).hexdigest())


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["state.safetensors", "meta.json", "seal"]),
    breaks=st.sampled_from([flipped, flipped, cut, cut, gone, a_folder, older_program]),
    at=st.floats(0.0, 1.0, exclude_max=True),
)
def test_whatever_happened_to_the_newest_the_one_before_is_used(
    tmp_path_factory: pytest.TempPathFactory, name: str, breaks: object, at: float
) -> None:
    folder = tmp_path_factory.mktemp("own")
    store = Checkpoints(folder, kept=2)
    for version in (1, 2):
        written(store, version)
    assert callable(breaks)
    breaks(folder / f"v00000002-{'d' * 16}" / name, at)
    reasons = ("seal", "state", "format", "missing", "disk")
    before = sum(map(failed, reasons))
    found = store.newest([(1, "d" * 16), (2, "d" * 16)])
    assert found is not None and found[0].version == 1
    assert sum(map(failed, reasons)) == before + 1
    written(store, 3)
    found = store.newest([(3, "d" * 16)])
    assert found is not None and torch.equal(found[1]["master.a"], STATE["master.a"])
    store.close()
    shutil.rmtree(folder)


def test_what_the_disk_has_no_room_for_is_not_begun(store: Checkpoints, tmp_path: Path) -> None:
    before = failed("full")
    store.write(meta(1), {"master.a": torch.zeros(1).expand(1 << 60)})
    assert failed("full") == before + 1 and store.version == 0
    assert there(tmp_path) == []
    written(store, 1)
    assert len(there(tmp_path)) == 1


def test_a_checkpoint_holds_what_there_was_before_the_optimizers_next_step(
    store: Checkpoints,
) -> None:
    weight = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.AdamW([weight], lr=1.0, fused=True)
    weight.grad = torch.ones(4)
    disk = threading.Event()
    store._writer.submit(disk.wait)
    memory = Memory(ids={"t1": Known(0, 5, "trained", 1.0)}, newest_ms={0: 5})
    store.write(then := msgspec.structs.replace(meta(1), memory=memory), {"master.a": weight})
    optimizer.step()
    memory.ids["t2"], memory.newest_ms[0] = Known(0, 7, "untrained"), 7
    disk.set()
    store.wait()
    found = store.newest([(1, "d" * 16)])
    assert found is not None and torch.equal(found[1]["master.a"], torch.arange(4.0))
    assert not torch.equal(weight, torch.arange(4.0))
    assert found[0].memory == Memory(ids={"t1": Known(0, 5, "trained", 1.0)}, newest_ms={0: 5})
    assert then.state_sha256 == "", "it is the writer's own that it fills in"


def test_it_says_that_it_is_busy_while_one_is_written(tmp_path: Path) -> None:
    written = threading.Event()

    def crash(point: str) -> None:
        assert point != "checkpoint_written" or written.wait(20)

    store = Checkpoints(tmp_path / "own", kept=2, crash=crash)
    counted = CHECKPOINTS.labels("busy")._value.get
    before = counted()
    assert not store.busy() and counted() == before
    store.write(meta(1), STATE)
    assert store.busy() and counted() == before + 1
    store.write(meta(2), STATE)
    assert store.version == 1 and counted() == before + 2
    written.set()
    store.wait()
    assert not store.busy()
    store.close()
    assert there(tmp_path) == ["v00000001-dddddddddddddddd"]


def test_what_else_than_a_disk_ended_the_last_write_is_raised_at_the_end(tmp_path: Path) -> None:
    def crash(point: str) -> None:
        if point == "checkpoint_written":
            raise RuntimeError(point)

    store = Checkpoints(tmp_path / "own", kept=2, crash=crash)
    store.write(meta(1), STATE)
    with pytest.raises(RuntimeError, match="checkpoint_written"):
        store.close()


def test_one_part_of_a_trainer_that_cannot_be_closed_keeps_no_other_open(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = mill.trainer()
    closed: list[str] = []

    def failing(name: str, close: Callable[[], None]) -> Callable[[], None]:
        def fail() -> None:
            close()
            closed.append(name)
            raise RuntimeError(name)

        return fail

    for name in ("_checkpoints", "_reader", "_releases", "_publisher", "_report"):
        part = getattr(trainer, name)
        monkeypatch.setattr(part, "close", failing(name, part.close))
    with pytest.raises(RuntimeError):
        trainer.close()
    mill.forget(trainer)
    assert closed == ["_checkpoints", "_reader", "_releases", "_publisher", "_report"]


def test_no_folder_for_checkpoints_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="state_dir: no checkpoints in .*file/own"):
        Checkpoints(tmp_path / "file" / "own", kept=2)


def test_one_that_was_fenced_meanwhile_leaves_nothing_half_done(tmp_path: Path) -> None:
    def next_trainer(point: str) -> None:
        if point == "checkpoint_written":
            younger = Checkpoints(tmp_path / "own", kept=2)
            younger.sweep()
            younger.close()

    before = failed("missing")
    older = Checkpoints(tmp_path / "own", kept=2, crash=next_trainer)
    written(older, 1)
    assert failed("missing") == before + 1 and older.version == 0
    assert there(tmp_path) == []
    older.close()


def test_another_logs_checkpoints_do_not_push_out_this_ones(
    store: Checkpoints, tmp_path: Path
) -> None:
    for version in (3, 60, 80):
        written(store, version, "x")
    assert store.newest([(0, "d" * 16)]) is None
    for version in (20, 40):
        written(store, version)
    names = ["v00000020-d", "v00000040-d", "v00000060-x", "v00000080-x"]
    assert [name[:11] for name in there(tmp_path)] == names
    for version in (70, 90):
        written(store, version)
    assert [name[:11] for name in there(tmp_path)] == ["v00000070-d", "v00000090-d"]


def test_what_the_log_does_not_know_goes_first(store: Checkpoints, tmp_path: Path) -> None:
    written(store, 20)
    written(store, 30, "x")
    store.newest([(20, "d" * 16)])
    written(store, 30)
    assert [name[:11] for name in there(tmp_path)] == ["v00000020-d", "v00000030-d"]


def test_two_prefixes_on_one_state_dir_keep_apart(mill: Mill) -> None:
    folders = {
        msgspec.structs.replace(mill.settings, prefix=prefix, model=model).own_dir
        for prefix, model in (("", "m"), ("a-", "m"), ("b-", "m"), ("", "a-m"))
    }
    assert len(folders) == 4
