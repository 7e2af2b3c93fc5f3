"""A version and its account: visible together, once, from one publisher."""

from collections.abc import Sequence

import msgspec
import pytest

from tailrace import topics
from tailrace.errors import Fenced, InvalidRecord
from tailrace.events import Coordinates, ModelUpdate, Range, Receipt, Release, Step
from tailrace.log.base import LogRecord
from tailrace.partition import partition_of
from tailrace.stream import Writer, read_all
from tailrace.topics import Topic, named
from tailrace.weights import codec
from tests.weights.conftest import MODEL, TOPICS, Channel
from tests.weights.models import FILES, model, trained


def _read(channel: Channel, topic: Topic) -> list[LogRecord]:
    return list(read_all(channel.log, named(topic, channel.prefix), committed_only=True))


def _receipt(number: int) -> tuple[str, Receipt]:
    receipt = Receipt(
        source=Coordinates(topic="trajectories", partition=0, offset=number),
        subject_id=f"00000000-0000-0000-0000-{number:012}",
        event_time_ms=1,
        stage="trainer",
        outcome="trained",
        version=1,
    )
    return f"default:s{number}", receipt


def _ends(channel: Channel) -> dict[str, dict[int, int]]:
    names = [named(topic, channel.prefix) for topic in TOPICS]
    return {name: channel.log.ends(name) for name in names}


def _step(number: int) -> Step:
    return Step(model=MODEL, step=number, version=1, event_time_ms=1)


def test_a_version_with_its_account(channel: Channel, small_chunks: int) -> None:
    publisher = channel.publisher()
    assert publisher.head() is None
    base = channel.keyframe(publisher, 0, model())
    assert (base.kind, base.codec, base.keyframe_version) == ("keyframe", "classes-1", 0)
    stream = codec.encode_delta(model(), trained(model(), 1))
    receipts = [_receipt(number) for number in range(20)]
    manifest = channel.manifest(1, trained(model(), 1), base)
    update = publisher.publish(manifest, stream, [_step(1), _step(2)], receipts)
    assert publisher.head() == update
    assert (update.kind, update.bytes, update.keyframe_version) == ("delta", len(stream), 0)
    assert update.chunks is not None
    assert len(update.chunks.offsets) == -(-len(stream) // small_chunks) > 1

    manifests = _read(channel, topics.MODEL_UPDATES)
    assert [channel.wire.decode(ModelUpdate, r.value) for r in manifests] == [base, update]
    steps = [channel.wire.decode(Step, r.value).step for r in _read(channel, topics.STEPS)]
    assert steps == [1, 2]
    records = _read(channel, topics.RECEIPTS)
    assert len(records) == 20
    for record in records:
        receipt = channel.wire.decode(Receipt, record.value)
        key = f"default:s{receipt.source.offset}".encode()
        assert record.key == key
        assert record.partition == partition_of(key, 3)
    chunks = {r.offset: r for r in _read(channel, topics.MODEL_CHUNKS)}
    assert b"".join(chunks[o].value or b"" for o in update.chunks.offsets) == stream
    assert chunks[update.chunks.offsets[0]].headers["tailrace-version"] == b"1"


def test_a_zero_step_version_has_no_chunks(channel: Channel) -> None:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    chunks = channel.log.ends(named(topics.MODEL_CHUNKS, channel.prefix))
    update = channel.label(publisher, 1, base)
    assert (update.kind, update.chunks, update.bytes) == ("delta", None, None)
    assert update.keyframe_version == 0
    assert channel.log.ends(named(topics.MODEL_CHUNKS, channel.prefix)) == chunks


def test_a_second_publisher_fences_the_first(channel: Channel) -> None:
    first = channel.publisher()
    base = channel.keyframe(first, 0, model())
    second = channel.publisher()
    assert second.head() == base
    with pytest.raises(Fenced):
        channel.delta(first, 1, trained(model(), 1), base)
    update = channel.delta(second, 1, trained(model(), 2), base)
    assert [u.digest for u in channel.follow().lineage.updates.values()] == [
        base.digest,
        update.digest,
    ]


def test_models_do_not_fence_each_other(channel: Channel) -> None:
    first, other = channel.publisher(), channel.publisher("other")
    base = channel.keyframe(first, 0, model())
    channel.keyframe(other, 0, model(9), model="other")
    assert channel.publisher("other").head() is not None
    channel.delta(first, 1, trained(model(), 1), base)


def test_a_failed_transaction_leaves_nothing(channel: Channel) -> None:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    stream = codec.encode_delta(model(), trained(model(), 1))
    bad = ("default:s", Receipt(subject_id="x", event_time_ms=1.5))  # type: ignore[arg-type]
    manifest = channel.manifest(1, trained(model(), 1), base)
    with pytest.raises(InvalidRecord):
        publisher.publish(manifest, stream, [_step(1)], [_receipt(1), bad])
    for topic, count in ((topics.MODEL_UPDATES, 1), (topics.STEPS, 0), (topics.RECEIPTS, 0)):
        assert len(_read(channel, topic)) == count
    assert publisher.head() == base
    update = publisher.publish(manifest, stream, [_step(1)], [_receipt(1)])
    subscriber = channel.follow()  # the first attempt's chunks are in nobody's way
    assert subscriber.fetch(update) == stream
    assert len(_read(channel, topics.RECEIPTS)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "not after the head"),
        ({"model": "other"}, "wrong model"),
        ({"digest": None}, "no digest"),
        ({"kind": "adapter"}, "is a delta"),
        ({"base_version": None, "base_digest": None}, "has no base"),
        ({"base_version": 7}, "is not there"),
        ({"base_digest": "0"}, "is not there"),
        ({"ranges": [Range(partition=0, start=3, end=9)]}, "does not go on"),
        ({"ranges": [Range(partition=0, start=4, end=3)]}, "does not go on"),
        ({"ranges": [Range(start=4, end=9), Range(partition=1, start=1, end=2)]}, "partition 1"),
        ({"ranges": [Range(partition=0, start=4, end=9, held=[9])]}, "beyond its end"),
    ],
)
def test_what_does_not_continue_the_lineage_is_refused(
    memory_channel: Channel, change: dict[str, object], message: str
) -> None:
    channel, publisher = memory_channel, memory_channel.publisher()
    base = channel.keyframe(publisher, 0, model(), ranges=[Range(partition=0, start=0, end=0)])
    at = [Range(partition=0, start=0, end=4, held=[2])]
    first = channel.delta(publisher, 1, trained(model(), 1), base, ranges=at)
    new = trained(model(), 2)
    stream = codec.encode_delta(channel.versions[1], new)
    good = {"ranges": [Range(partition=0, start=4, end=9, held=[2])]}
    before = _ends(channel)
    manifest = channel.manifest(2, new, first, **good)
    with pytest.raises(ValueError, match=message):
        publisher.publish(msgspec.structs.replace(manifest, **change), stream, [], [])
    assert _ends(channel) == before
    second = channel.delta(publisher, 2, new, first)  # partition 0 stays as it was
    channel.delta(publisher, 3, trained(new, 3), second, **good)


def test_no_stream_means_no_change(memory_channel: Channel) -> None:
    publisher = memory_channel.publisher()
    base = memory_channel.keyframe(publisher, 0, model())
    with pytest.raises(ValueError, match="has no stream"):
        publisher.publish(memory_channel.manifest(1, trained(model(), 1), base), None, [], [])


def test_the_first_version_is_a_keyframe(memory_channel: Channel) -> None:
    channel, publisher = memory_channel, memory_channel.publisher()
    with pytest.raises(ValueError, match="must be a keyframe"):
        publisher.publish(channel.manifest(0, model()), codec.encode_delta({}, model()), [], [])


def test_a_branch_may_begin_with_anything_while_its_base_can_be_made(
    channel: Channel, small_chunks: int
) -> None:
    publisher = channel.publisher()
    base = channel.keyframe(publisher, 0, model())
    channel.delta(publisher, 1, trained(model(), 1), base)
    channel.delta(publisher, 2, trained(model(), 2), base)
    label = channel.label(publisher, 3, base)
    assert (label.kind, label.base_version, label.keyframe_version) == ("delta", 0, 0)
    for version in (4, 5, 6):
        channel.keyframe(publisher, version, model(version), publisher.head())
    assert [publisher.retained(version) for version in (0, 3, 4)] == [False, False, True]
    with pytest.raises(ValueError, match="must be a keyframe"):
        channel.delta(publisher, 7, trained(model(), 7), base)
    with pytest.raises(ValueError, match="must be a keyframe"):
        channel.label(publisher, 7, label)
    channel.keyframe(publisher, 7, model(), label)  # nobody has to download it who has the weights
    channel.delta(publisher, 8, trained(model(5), 8), publisher.version(5))  # type: ignore[arg-type]


def _published_keyframes(channel: Channel, versions: Sequence[int]) -> list[ModelUpdate]:
    publisher = channel.publisher()
    return [
        channel.keyframe(publisher, version, model(version), publisher.head())
        for version in versions
    ]


def test_old_chunks_are_deleted(channel: Channel, small_chunks: int) -> None:
    updates = _published_keyframes(channel, range(5))
    low = channel.log.starts(named(topics.MODEL_CHUNKS, channel.prefix))[0]
    assert updates[2].chunks is not None
    assert low == updates[2].chunks.offsets[0]
    subscriber = channel.follow()
    assert subscriber.fetch(updates[2])
    assert codec.decode_keyframe(subscriber.fetch(updates[4]))[1] == FILES


def test_chunks_of_a_pinned_version_are_kept(channel: Channel, small_chunks: int) -> None:
    updates = _published_keyframes(channel, range(3))
    writer = Writer(channel.log.producer(), channel.wire, prefix=channel.prefix)
    release = Release(model=MODEL, event_time_ms=1, mode="pin", live=1)
    writer.write(topics.RELEASES, release).result(10)
    writer.producer.close()
    publisher = channel.publisher()
    for version in (3, 4):
        channel.keyframe(publisher, version, model(version), publisher.head())
    low = channel.log.starts(named(topics.MODEL_CHUNKS, channel.prefix))[0]
    assert updates[1].chunks is not None
    assert low == updates[1].chunks.offsets[0]
