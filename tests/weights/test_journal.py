"""Stepping back: through the undo journal, verified, without a download, as far as it reaches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from tailrace import topics
from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.memory import MemoryLog
from tailrace.topics import named
from tailrace.weights import codec
from tailrace.weights.journal import Journal, Undo
from tailrace.weights.lineage import State
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Progress, Subscriber
from tailrace.weights.tensors import digest, digest_files
from tests.weights.conftest import Channel
from tests.weights.models import FILES, model, same, tensor, trained

ROOM = 1 << 20


def _line(channel: Channel, count: int, keyframes: int = 100) -> Subscriber:
    """Versions 0 to ``count - 1``, and who knows their manifests."""
    publisher = channel.publisher()
    update = channel.keyframe(publisher, 0, model())
    for version in range(1, count):
        tensors = trained(dict(channel.versions[version - 1]), version)
        make = channel.delta if version % keyframes else channel.keyframe
        update = make(publisher, version, tensors, update)
    return channel.follow()


def _held(channel: Channel, subscriber: Subscriber, version: int, room: int = ROOM) -> Store:
    store = Store.empty(journal_bytes=room)
    subscriber.advance(store, version)
    store.confirm()
    return store


def _no_more_downloads(channel: Channel) -> None:
    where = named(topics.MODEL_CHUNKS, channel.prefix)
    channel.log.delete_before(where, channel.log.ends(where))


def _at(channel: Channel, store: Store, version: int) -> bool:
    return (store.version, store.digest) == (version, digest(store.tensors)) and same(
        dict(store.tensors), dict(channel.versions[version])
    )


def test_back_without_a_download(channel: Channel) -> None:
    subscriber = _line(channel, 6)
    store = _held(channel, subscriber, 5)
    _no_more_downloads(channel)
    assert [u.version for u in subscriber.advance(store, 2)] == [2]
    assert _at(channel, store, 2)
    store.confirm()
    assert [u.version for u in subscriber.advance(store, 0)] == [0]
    assert _at(channel, store, 0)
    with pytest.raises(UpdateRefused, match="gap"):
        subscriber.advance(store, 5)
    assert _at(channel, store, 0)


def test_back_to_the_fork_then_on(channel: Channel) -> None:
    _line(channel, 5)
    publisher = channel.publisher()
    label = channel.label(publisher, 5, publisher.version(2))  # type: ignore[arg-type]
    head = channel.delta(publisher, 6, trained(dict(channel.versions[5]), 6), label)
    channel.delta(publisher, 7, trained(dict(channel.versions[6]), 7), head)
    subscriber = channel.follow()
    store = _held(channel, subscriber, 4)
    assert [u.version for u in subscriber.advance(store, 5)] == [5]
    assert _at(channel, store, 5)
    store.rollback()
    where = named(topics.MODEL_CHUNKS, channel.prefix)
    assert head.chunks is not None
    channel.log.delete_before(where, {0: head.chunks.offsets[0]})  # only 6 and 7 can be read
    assert [u.version for u in subscriber.advance(store)] == [6, 7]
    assert _at(channel, store, 7)
    assert subscriber.advance(store, 0) and _at(channel, store, 0)


def test_over_a_keyframe_and_its_files(memory_channel: Channel) -> None:
    subscriber = _line(memory_channel, 8, keyframes=3)
    files = {"config.json": b"{}"}
    store = Store(model(), 0, digest(model()), files, journal_bytes=ROOM)
    for version in range(1, 8):
        subscriber.advance(store, version)
    assert store.files == FILES
    _no_more_downloads(memory_channel)
    for version in (6, 4, 2, 1):
        subscriber.advance(store, version)
        assert _at(memory_channel, store, version)
    assert store.files == files
    with pytest.raises(UpdateRefused, match="gap"):
        subscriber.advance(store, 0)  # its files are others than the ones that are held


def test_a_failed_swap_leaves_the_journal_as_it_was(memory_channel: Channel) -> None:
    subscriber = _line(memory_channel, 4)
    store = _held(memory_channel, subscriber, 3)
    reach = store.reach
    subscriber.advance(store, 1)
    store.rollback()
    assert store.reach == reach and _at(memory_channel, store, 3)
    _no_more_downloads(memory_channel)
    subscriber.advance(store, 0)
    assert _at(memory_channel, store, 0)


def test_it_reaches_as_far_as_its_room(memory_channel: Channel) -> None:
    subscriber = _line(memory_channel, 6)
    store = _held(memory_channel, subscriber, 5)
    sizes = [len(undo.stream) for undo in store._now.journal.undos]
    assert len(sizes) == 5
    small = _held(memory_channel, subscriber, 5, room=sum(sizes[:2]))
    marks = [digest(memory_channel.versions[v]) for v in (5, 4, 3)]
    assert [state.digest for state in small.reach] == marks
    assert _held(memory_channel, subscriber, 5, room=sizes[0] - 1).reach == (small.reach[0],)
    assert _held(memory_channel, subscriber, 5, room=0).reach == (small.reach[0],)
    seen: list[Progress] = []
    subscriber._progress = seen.append
    assert [u.version for u in subscriber.advance(small, 2)] == [0, 1, 2]  # the keyframe's way
    assert (
        seen[-1].bytes
        == seen[-1].of_bytes
        == sum(subscriber.lineage.updates[v].bytes or 0 for v in (0, 1, 2))
    )


def _spoiled(undo: Undo, how: str) -> Undo:
    if how == "noise":
        return undo._replace(stream=b"noise" * 50)
    other = trained(model(), 99)
    return undo._replace(stream=codec.encode_delta(other, trained(other, 5)))


@pytest.mark.parametrize("how", ["noise", "another"])
def test_a_journal_that_leads_elsewhere_is_forgotten(memory_channel: Channel, how: str) -> None:
    subscriber = _line(memory_channel, 5)
    store = _held(memory_channel, subscriber, 4)
    journal = store._now.journal
    undos = (journal.undos[0], _spoiled(journal.undos[1], how), *journal.undos[2:])
    store._now = store._now._replace(journal=Journal(journal.limit_bytes, undos))
    one = memory_channel.follow().lineage.updates[1]
    with pytest.raises(UpdateRefused, match="undo"):
        store.apply(one, None)
    assert _at(memory_channel, store, 4) and store.reach == (
        State(store.digest, digest_files(FILES)),
    )
    store._now = store._now._replace(journal=Journal(journal.limit_bytes, undos))
    assert [u.version for u in subscriber.advance(store, 1)] == [0, 1]  # and the keyframe helps
    assert _at(memory_channel, store, 1)


def test_undos_are_pushed_and_dropped() -> None:
    undos = [Undo(bytes(size), str(size), {}) for size in (40, 30, 50)]
    journal = Journal(100)
    for undo in undos:
        journal = journal.after(undo)
    assert [state.digest for state in journal.states] == ["50", "30"]
    assert journal.after(Undo(bytes(101), "x", {})).states == ()
    assert journal.before(1).states == (State("30"),)
    assert journal.before(1).after(undos[0]).states == (State("40"), State("30"))


def test_tensors_that_came_and_went_come_back() -> None:
    first = {"a": tensor("bfloat16", (8,), 1), "b": tensor("int8", (3,), 2)}
    second = {"a": tensor("bfloat16", (4,), 3), "c": tensor("float32", (2,), 4)}
    store = Store(first, 0, digest(first), journal_bytes=ROOM)
    update = ModelUpdate(
        model="m", version=1, created_ms=0, kind="delta", base_version=0,
        base_digest=digest(first), digest=digest(second),
    )  # fmt: skip
    store.apply(update, codec.encode_delta(first, second))
    assert same(dict(store.tensors), second)
    store.apply(msgspec.structs.replace(update, version=2, digest=digest(first)), None)
    assert same(dict(store.tensors), first)


# Any walk over any history


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """(kind, base) of versions 1, 2, ..."""
    return [
        (draw(st.sampled_from(["delta", "delta", "delta", "keyframe", "label"])),
         draw(st.integers(max(0, version - 4), version - 1)))
        for version in range(1, draw(st.integers(1, 10)) + 1)
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(_histories(), st.lists(st.integers(0, 10), max_size=8), st.sampled_from([0, 2000, ROOM]))
def test_any_walk_over_any_history(
    history: list[tuple[str, int]], walk: list[int], room: int
) -> None:
    channel = Channel(MemoryLog(), "")
    publisher = channel.publisher()
    channel.keyframe(publisher, 0, model())
    for version, (kind, base_version) in enumerate(history, 1):
        base = publisher.version(base_version)
        assert base is not None
        if not publisher.retained(base_version):
            kind = "keyframe"
        tensors = trained(dict(channel.versions[base_version]), version)
        if kind == "label":
            channel.label(publisher, version, base)
        elif kind == "keyframe":
            channel.keyframe(publisher, version, tensors, base)
        else:
            channel.delta(publisher, version, tensors, base)
    fetched: list[Progress] = []
    subscriber = channel.follow()
    subscriber._progress = fetched.append
    store = Store.empty(journal_bytes=room)
    for version in walk:
        if version not in channel.versions:
            continue
        before, reach = store._now, store.reach
        fetched.clear()
        try:
            subscriber.advance(store, version)
        except UpdateRefused as error:
            assert error.reason == "gap" and not publisher.retained(version)
            assert store._now is before
            continue
        assert _at(channel, store, version)
        if digest(channel.versions[version]) in [state.digest for state in reach[:10]]:
            assert not fetched
        assert sum(len(u.stream) for u in store._now.journal.undos) <= room
        if version % 2:
            store.confirm()
        else:
            store.rollback()
            assert store._now is before or store._confirmed is None
    channel.close()
