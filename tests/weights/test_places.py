"""Keyframes in a store: whole before their manifest, verified after it, gone when nobody needs
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any

import fsspec
import msgspec
import pytest

from tailrace import topics
from tailrace.errors import SettingsError, UpdateRefused
from tailrace.events import ModelUpdate, Release
from tailrace.stream import Writer
from tailrace.topics import named
from tailrace.updates import ModelUpdates
from tailrace.weights import places
from tailrace.weights.places import Place
from tailrace.weights.publisher import Publisher
from tailrace.weights.store import Store
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, same, trained


def _files(url: str) -> list[str]:
    store, root = fsspec.core.url_to_fs(url)
    return sorted(path.rsplit("/", 1)[-1] for path in store.find(root))


def test_a_keyframe_beside_the_log(memory_channel: Channel, url: str) -> None:
    channel, publisher = memory_channel, memory_channel.publisher(keyframe_store=url)
    base = channel.keyframe(publisher, 0, model())
    assert base.chunks is None and base.uri is not None and base.bytes
    assert base.uri.startswith(url.split("/")[0]) and base.sha256
    assert _files(url) == [f"00000000-{base.sha256[:16]}.keyframe"]
    assert channel.log.ends(named(topics.MODEL_CHUNKS))[0] == 0
    channel.delta(publisher, 1, trained(model(), 1), base)
    seen: list[int] = []
    assert channel.follow().fetch(base, seen.append) and sum(seen) == base.bytes
    with ModelUpdates(channel.log, MODEL) as updates:
        update = next(updates)
        assert update.version == 1
        assert same(dict(update.tensors), dict(channel.versions[1]))
    assert publisher.retained(1)
    channel.delta(publisher, 2, trained(model(), 2), base)  # a branch from what lies there


def _spoil(store: Any, path: str, change: Callable[[bytes], bytes]) -> None:
    store.pipe_file(path, change(store.cat_file(path)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1], "truncated"),
        (lambda content: b"", "truncated"),
        (lambda content: content + b"x", "corrupt"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "corrupt"),
    ],
)
def test_what_lies_there_is_checked(
    memory_channel: Channel, url: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    base = memory_channel.keyframe(memory_channel.publisher(keyframe_store=url), 0, model())
    store, path = fsspec.core.url_to_fs(base.uri)
    content = store.cat_file(path)
    _spoil(store, path, change)
    subscriber = memory_channel.follow()
    with pytest.raises(UpdateRefused) as refused:
        subscriber.advance(Store.empty())
    assert refused.value.reason == reason and "version 0" in str(refused.value)
    store.pipe_file(path, content)
    subscriber.advance(Store.empty())


@pytest.mark.parametrize("uri", ["nothing://x", "memory://not/there", "memory://a::file://b", ""])
def test_what_cannot_be_read_is_refused(memory_channel: Channel, uri: str) -> None:
    update = ModelUpdate(model=MODEL, version=1, created_ms=0, uri=uri, bytes=10, kind="keyframe")
    with pytest.raises(UpdateRefused) as refused:
        memory_channel.subscriber().fetch(update)
    assert refused.value.reason == "uri"


def test_a_store_that_comes_back_is_read_again(memory_channel: Channel, url: str) -> None:
    base = memory_channel.keyframe(memory_channel.publisher(keyframe_store=url), 0, model())
    store, path = fsspec.core.url_to_fs(base.uri)
    content = store.cat_file(path)
    store.rm_file(path)
    now_s = 0.0
    with ModelUpdates(memory_channel.log, MODEL, retry_s=5.0, clock=lambda: now_s) as updates:
        assert updates.poll(0) is None
        store.pipe_file(path, content)
        now_s = 4.9
        assert updates.poll(0) is None
        now_s = 5.1
        update = updates.poll(0)
        assert update is not None and update.version == 0


def test_old_keyframes_and_orphans_go(memory_channel: Channel, url: str) -> None:
    channel, publisher = memory_channel, memory_channel.publisher(keyframe_store=url)
    other = Publisher(channel.log, channel.wire, model="other/one", keyframe_store=url)
    channel.keyframe(other, 0, model(9), model="other/one")
    orphan = Place(url, model=MODEL).put(0, b"half", "f" * 64)
    store, root = fsspec.core.url_to_fs(url)
    stranger = f"{root}/tailrace.{MODEL}/README"
    store.pipe_file(stranger, b"not ours")
    update = channel.keyframe(publisher, 0, model())
    assert not places.exists(orphan)  # it goes with any keyframe, and at a start
    for version in range(1, 6):
        update = channel.keyframe(publisher, version, model(version), update)
    updates = channel.follow().lineage.updates
    assert [v for v, u in updates.items() if places.exists(str(u.uri))] == [3, 4, 5]
    assert [publisher.retained(version) for version in (2, 3)] == [False, True]
    assert store.exists(stranger)
    orphan = Place(url, model=MODEL).put(5, b"half", "e" * 64)
    channel.publisher(keyframe_store=url)
    assert not places.exists(orphan)
    assert "0-" in "".join(_files(url)) and other.retained(0)
    with pytest.raises(UpdateRefused, match="uri"):
        channel.follow().fetch(updates[0])
    other.close()


def test_a_folder_under_another_name_is_not_emptied(
    memory_channel: Channel, tmp_path: Path
) -> None:
    channel, folder = memory_channel, tmp_path / "keyframes"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    update = channel.keyframe(channel.publisher(keyframe_store=f"file://{folder}"), 0, model())
    orphan = Place(f"file://{folder}", model=MODEL).put(0, b"half", "f" * 64)
    assert channel.publisher(keyframe_store=f"file://{tmp_path}/link").retained(0)
    assert places.exists(str(update.uri)) and not places.exists(orphan)


def test_a_slow_publisher_leaves_what_its_successor_stored(
    memory_channel: Channel, url: str
) -> None:
    channel, slow = memory_channel, memory_channel.publisher(keyframe_store=url)
    updates = [channel.keyframe(slow, 0, model())]
    newer = channel.publisher(keyframe_store=url)
    for version in (1, 2, 3, 4):
        updates.append(channel.keyframe(newer, version, model(version), updates[-1]))
    coming = Place(url, model=MODEL).put(5, b"its manifest is not written yet", "d" * 64)
    slow._retention.sweep(slow.lineage)  # it had been held up before it came to this
    kept = [places.exists(str(update.uri)) for update in updates]
    assert kept == [False, False, True, True, True] and places.exists(coming)
    newer._retention.sweep(newer.lineage)
    assert places.exists(coming)


def test_what_a_release_names_is_kept(memory_channel: Channel, url: str) -> None:
    channel, publisher = memory_channel, memory_channel.publisher(keyframe_store=url)
    updates = [channel.keyframe(publisher, 0, model())]
    writer = Writer(channel.log.producer(), channel.wire)
    writer.write(topics.RELEASES, Release(model=MODEL, event_time_ms=1, mode="pin", live=0))
    for version in range(1, 5):
        updates.append(channel.keyframe(publisher, version, model(version), updates[-1]))
    assert all(places.exists(str(update.uri)) for update in updates)
    writer.write(topics.RELEASES, Release(model=MODEL, event_time_ms=2))
    updates.append(channel.keyframe(publisher, 5, model(5), updates[-1]))
    assert [places.exists(str(update.uri)) for update in updates] == [False] * 3 + [True] * 3


def test_the_wrong_log_deletes_nothing(memory_channel: Channel, url: str) -> None:
    update = memory_channel.keyframe(memory_channel.publisher(keyframe_store=url), 0, model())
    from tailrace.log.memory import MemoryLog

    Channel(MemoryLog(), "").publisher(keyframe_store=url)  # nothing is published there
    assert places.exists(str(update.uri))


@pytest.mark.parametrize("url", ["nothing://x", "abfs://account/x"])
def test_a_store_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="keyframe store"):
        Place(url, model=MODEL)


def test_without_fsspec_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(SettingsError, match=r"tailrace\[weights\]"):
        Place("memory://x", model=MODEL)
    with pytest.raises(UpdateRefused, match=r"tailrace\[weights\]"):
        places.read("memory://x", 1, lambda count: None)


def test_the_trainers_own_fields_are_not_believed(memory_channel: Channel) -> None:
    publisher = memory_channel.publisher()
    manifest = memory_channel.manifest(0, model(), uri="memory://elsewhere", bytes=3)
    from tailrace.weights import codec

    made = publisher.publish(manifest, codec.encode_keyframe(model(), {}), [], [])
    assert made.uri is None and made.chunks is not None
    assert msgspec.structs.replace(made) == memory_channel.follow().lineage.head
