"""What arrives: committed manifests in order, bytes that are what their manifest says."""

from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest

from tailrace import topics
from tailrace.errors import UpdateRefused
from tailrace.events import Chunks, ModelUpdate
from tailrace.stream import Writer
from tailrace.topics import named
from tailrace.weights import codec
from tailrace.weights.lineage import MANIFESTS_SKIPPED
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Progress
from tailrace.weights.tensors import digest
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import FILES, model, same, trained


def _two_versions(channel: Channel) -> tuple[ModelUpdate, ModelUpdate]:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    return base, channel.delta(publisher, 1, trained(model(), 1), base)


def test_manifests_come_in_order_and_bytes_verified(channel: Channel, small_chunks: int) -> None:
    subscriber = channel.subscriber()
    assert subscriber.poll(0.01) == []
    base, update = _two_versions(channel)
    found: list[ModelUpdate] = []
    while len(found) < 2:
        found += subscriber.poll(5.0)
    assert found == [base, update]
    store = Store.empty()
    for each in subscriber.lineage.paths(store.reach)[0].updates:
        store.apply(each, subscriber.fetch(each))
    assert same(dict(store.tensors), trained(model(), 1))


def test_an_open_transaction_is_not_seen(channel: Channel) -> None:
    base, _ = _two_versions(channel)
    producer = channel.log.producer(transactional_id=f"{channel.prefix}open")
    writer = Writer(producer, channel.wire, prefix=channel.prefix)
    producer.begin()
    manifest = channel.manifest(2, model(), base)
    writer.write(topics.MODEL_UPDATES, manifest)
    producer.flush()
    subscriber = channel.subscriber()
    found: list[ModelUpdate] = []
    while len(found) < 2:
        found += subscriber.poll(5.0)
    assert subscriber.poll(0.3) == []
    producer.abort()
    assert subscriber.catch_up() == []
    producer.begin()
    writer.write(topics.MODEL_UPDATES, manifest)
    producer.commit()
    producer.close()
    assert [u.version for u in subscriber.catch_up()] == [2]


def test_what_is_no_manifest_is_skipped_and_counted(channel: Channel) -> None:
    def skipped(reason: str) -> float:
        return float(MANIFESTS_SKIPPED.labels(reason)._value.get())

    base, update = _two_versions(channel)
    before = {r: skipped(r) for r in ("not_avro", "duplicate", "foreign", "base")}
    channel.append(topics.MODEL_UPDATES, b"noise")
    other = channel.manifest(1, model(5), base)
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(other))
    foreign = channel.wire.encode(msgspec.structs.replace(other, model="other", version=9))
    channel.append(topics.MODEL_UPDATES, foreign)
    channel.append(topics.MODEL_UPDATES, foreign, key="other")
    elsewhere = channel.manifest(2, model(6), update, base_digest=base.digest, kind="delta")
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(elsewhere))
    subscriber = channel.follow()
    assert list(subscriber.lineage.updates.values()) == [base, update]
    assert {reason: skipped(reason) - count for reason, count in before.items()} == {
        "not_avro": 1,
        "duplicate": 1,
        "foreign": 1,
        "base": 1,
    }
    assert channel.publisher().head() == update, "nor is it the trainer's history"


Change = Callable[[Channel, ModelUpdate], dict[str, object]]


def _moved(offsets: Callable[[list[int]], list[int]]) -> Change:
    def change(channel: Channel, update: ModelUpdate) -> dict[str, object]:
        assert update.chunks is not None
        return {"chunks": Chunks(offsets=offsets(update.chunks.offsets))}

    return change


def _with_last_chunk(value: bytes, key: str) -> Change:
    def change(channel: Channel, update: ModelUpdate) -> dict[str, object]:
        assert update.chunks is not None
        offset = channel.append(topics.MODEL_CHUNKS, value, key)
        return {"chunks": Chunks(offsets=[*update.chunks.offsets[:-1], offset])}

    return change


REFUSED: tuple[tuple[Change, str], ...] = (
    (_moved(lambda offsets: offsets[:-1]), "truncated"),
    (_moved(lambda offsets: [*offsets, offsets[-1] + 1000]), "truncated"),
    (_moved(lambda offsets: offsets[1:] + offsets[:1]), "corrupt"),
    (_moved(lambda offsets: []), "corrupt"),
    (_moved(lambda offsets: [-1, *offsets]), "corrupt"),
    (_moved(lambda offsets: [offsets[0] - 2, *offsets[1:]]), "corrupt"),
    (_with_last_chunk(b"x", MODEL), "truncated"),
    (_with_last_chunk(b"x" * 150, MODEL), "corrupt"),
    (_with_last_chunk(b"x" * 10, "other"), "corrupt"),
    (_with_last_chunk(b"", MODEL), "corrupt"),
    (lambda channel, update: {"sha256": "0" * 64}, "corrupt"),
    (lambda channel, update: {"chunks": Chunks(partition=5, offsets=[0])}, "truncated"),
    (lambda channel, update: {"chunks": None, "uri": "s3://bucket/x"}, "uri"),
)


def test_bytes_that_are_not_the_manifests_are_refused(channel: Channel, small_chunks: int) -> None:
    _, update = _two_versions(channel)
    subscriber = channel.follow()
    reasons = []
    for change, _ in REFUSED:
        with pytest.raises(UpdateRefused) as refused:
            subscriber.fetch(msgspec.structs.replace(update, **change(channel, update)))
        reasons.append(refused.value.reason)
    assert reasons == [reason for _, reason in REFUSED]
    assert len(subscriber.fetch(update)) == update.bytes  # and can still fetch what is right


def test_chunks_of_others_in_between_do_not_matter(channel: Channel, small_chunks: int) -> None:
    publisher = channel.publisher()
    stream = codec.encode_keyframe(model(), {})
    offsets = []
    for start in range(0, len(stream), 2000):
        channel.append(topics.MODEL_CHUNKS, b"garbage")
        offsets.append(channel.append(topics.MODEL_CHUNKS, stream[start : start + 2000]))
    base = channel.keyframe(publisher, 0, model())
    mixed = msgspec.structs.replace(
        base,
        chunks=Chunks(offsets=offsets),
        bytes=len(stream),
        sha256=sha256(stream).hexdigest(),
    )
    assert channel.subscriber().fetch(mixed) == stream


def test_deleted_chunks_are_refused(channel: Channel, small_chunks: int) -> None:
    base, update = _two_versions(channel)
    assert update.chunks is not None
    where = named(topics.MODEL_CHUNKS, channel.prefix)
    channel.log.delete_before(where, {0: update.chunks.offsets[0]})
    subscriber = channel.follow()
    with pytest.raises(UpdateRefused, match="truncated"):
        subscriber.fetch(base)
    assert len(subscriber.fetch(update)) == update.bytes


def test_a_refused_delta_is_passed_by_the_next_keyframe(channel: Channel) -> None:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    store = Store.empty()
    subscriber = channel.follow()
    assert subscriber.advance(store) == [base]
    store.confirm()
    wrong = channel.manifest(1, model(7), base)  # says other weights than its stream makes
    bad = publisher.publish(wrong, codec.encode_delta(model(), trained(model(), 1)), [], [])
    subscriber.catch_up()
    with pytest.raises(UpdateRefused, match="digest"):
        subscriber.advance(store)
    assert (store.version, store.digest) == (0, base.digest)
    channel.versions[1] = model(7)
    channel.keyframe(publisher, 2, model(7), bad)
    channel.delta(publisher, 3, trained(model(7), 3), publisher.head())  # type: ignore[arg-type]
    subscriber.catch_up()
    assert [u.version for u in subscriber.advance(store)] == [2, 3]
    assert store.digest == digest(trained(model(7), 3))


def test_a_folder_with_other_files_takes_a_keyframe(memory_channel: Channel) -> None:
    channel, publisher = memory_channel, memory_channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    files = {"config_digest": base.config_digest}
    label = channel.manifest(1, model(), base, **files)
    publisher.publish(label, None, [], [])
    subscriber = channel.follow()
    seen: list[Progress] = []
    subscriber._progress = seen.append
    for held, fetched in ((FILES, 0), ({"config.json": b"{}"}, base.bytes)):
        seen.clear()
        store = Store(model(), 0, str(base.digest), held)
        subscriber.advance(store)
        assert (store.version, store.files) == (1, FILES)
        assert (seen[-1].bytes if seen else 0) == fetched
    with pytest.raises(ValueError, match="brings no config files, but names others"):
        new = trained(model(), 2)
        stream = codec.encode_delta(model(), new)
        publisher.publish(channel.manifest(2, new, label, config_digest="0"), stream, [], [])
