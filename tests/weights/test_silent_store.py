"""Stores that are away: learning goes on, and what does not answer is not taken for lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
import pytest

from tailrace.errors import UpdateRefused
from tailrace.weights import places
from tailrace.weights.places import STORE_FAILED, Place
from tailrace.weights.store import Store
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, same, trained


def test_a_store_that_fails_does_not_stop_learning(memory_channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    publisher = memory_channel.publisher(keyframe_store=f"file://{tmp_path}/file/keyframes")
    base = memory_channel.keyframe(publisher, 0, model())
    assert base.uri is None and base.chunks is not None
    store = Store.empty()
    memory_channel.follow().advance(store)
    assert same(dict(store.tensors), model())


def test_nor_does_one_that_cannot_even_be_made(
    memory_channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the stores that connect when they are made: ftp, sftp, smb."""
    channel, first = memory_channel, memory_channel.publisher(keyframe_store=f"file://{tmp_path}")
    base = channel.keyframe(first, 0, model())

    def away(*arguments: object, **more: object) -> None:
        raise TimeoutError("cannot connect")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.core.url_to_fs", away)
        publisher = channel.publisher(keyframe_store=f"file://{tmp_path}")
        late = channel.keyframe(publisher, 1, model(1), base)
        assert late.uri is None and late.chunks is not None
    assert channel.keyframe(publisher, 2, model(2), late).uri is not None


def test_a_branch_is_refused_only_where_its_base_is_known_to_be_gone(
    memory_channel: Channel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, publisher = memory_channel, memory_channel.publisher(keyframe_store=url)
    base = channel.keyframe(publisher, 0, model())
    channel.keyframe(publisher, 1, model(1), base)

    def away(uri: str) -> bool:
        raise UpdateRefused("uri", "cannot connect")

    with monkeypatch.context() as patch:
        patch.setattr(places, "exists", away)
        assert not publisher.retained(0)
        channel.delta(publisher, 2, trained(model(), 2), base)  # it was there a moment ago
    store, path = fsspec.core.url_to_fs(base.uri)
    store.rm_file(path)
    with pytest.raises(ValueError, match="nobody can make"):
        channel.delta(publisher, 3, trained(model(), 3), base)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """What fsspec keeps in memory does not answer any more, until the test ends."""
    over = Event()

    def hang(*arguments: object, **more: object) -> None:
        over.wait(60)

    def begin() -> None:
        monkeypatch.setattr(places, "ANSWER_S", 0.05)
        monkeypatch.setattr(places, "LOOK_S", 0.05)
        monkeypatch.setattr(places, "_SLOWEST_BYTES_S", 1e12)
        for call in ("info", "open", "ls", "pipe_file"):
            monkeypatch.setattr(MemoryFileSystem, call, hang)

    yield begin
    over.set()


def test_nobody_waits_for_a_silent_store(
    memory_channel: Channel, silent: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed() -> list[float]:
        kinds = ("answer", "write", "delete", "look")
        return [STORE_FAILED.labels(kind)._value.get() for kind in kinds]

    channel = memory_channel
    publisher = channel.publisher(keyframe_store="memory://silent")
    base = channel.keyframe(publisher, 0, model())
    before, subscriber = failed(), channel.follow()
    silent()
    with pytest.raises(UpdateRefused, match="uri: .*no answer in 0.05 s"):
        subscriber.fetch(base)
    with pytest.raises(UpdateRefused, match="uri: .*no answer in 0.05 s"):
        places.exists(str(base.uri))
    assert not publisher.retained(0)
    late = channel.keyframe(publisher, 1, model(1), base)
    assert late.uri is None and late.chunks is not None
    assert [now - then for now, then in zip(failed(), before, strict=True)] == [5, 1, 1, 2]
    monkeypatch.undo()
    assert subscriber.fetch(base) and publisher.retained(0)


def test_a_store_that_cannot_be_asked_is_not_an_absent_file(
    memory_channel: Channel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = Place(url, model=MODEL).put(0, b"whole", "f" * 64)
    assert places.exists(uri) and not places.exists(uri.replace("00-f", "01-f"))

    def info(store: object, path: str, **more: object) -> None:
        raise OSError("cannot connect")

    for store in (MemoryFileSystem, LocalFileSystem):
        monkeypatch.setattr(store, "info", info)
    with pytest.raises(UpdateRefused, match="OSError: cannot connect"):
        places.exists(uri)
    with pytest.raises(UpdateRefused, match="is not one store"):
        places.exists("memory://a::file://b")
