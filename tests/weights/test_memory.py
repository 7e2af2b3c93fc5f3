"""What a receiver holds at once: the model that it makes, the stream, a frame, the undo."""

from __future__ import annotations

from collections.abc import Callable
import tracemalloc

from tailrace.weights import codec
from tailrace.weights.store import JOURNAL_BYTES, Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest
from tests.weights.conftest import Channel
from tests.weights.models import tensor, trained

FRAME = 1 << 20
MODEL_BYTES = 6 * 2 * FRAME


def _published(channel: Channel) -> Subscriber:
    """A keyframe of six tensors of a frame each, and two deltas."""
    base = {f"w{n}": tensor("bfloat16", (1024, 1024), n) for n in range(6)}
    publisher = channel.publisher()
    stream = codec.encode_keyframe(base, {}, frame_weights=FRAME)
    update = publisher.publish(channel.manifest(0, base), stream, [], [])
    for version in (1, 2):
        new = trained(base, version, share=0.03)
        stream = codec.encode_delta(base, new, frame_weights=FRAME)
        update = publisher.publish(channel.manifest(version, new, update), stream, [], [])
        base = new
    return channel.follow()


def _peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_copies_beyond_what_is_made(memory_channel: Channel) -> None:
    subscriber = _published(memory_channel)
    warm = Store.empty(journal_bytes=JOURNAL_BYTES)
    subscriber.advance(warm)  # what is built once is built now
    keyframe, delta, _ = subscriber.lineage.updates.values()
    assert keyframe.bytes and delta.bytes and delta.bytes < MODEL_BYTES / 10
    frames = 3 * 2 * FRAME

    store = Store.empty(journal_bytes=JOURNAL_BYTES)
    joining = _peak(lambda: subscriber.advance(store, 0))
    assert joining < MODEL_BYTES + 1.2 * keyframe.bytes + frames
    store.confirm()

    on = _peak(lambda: subscriber.advance(store, 1))
    undo_bytes = len(store._now.journal.undos[0].stream)
    assert on < MODEL_BYTES + delta.bytes + 2 * undo_bytes + frames
    store.confirm()

    back = _peak(lambda: subscriber.advance(store, 0))
    assert back < MODEL_BYTES + frames
    assert store.digest == digest(store.tensors) == keyframe.digest
