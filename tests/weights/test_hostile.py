"""Streams that are damaged or made to do harm: each is refused with a reason, at little cost."""

import json
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights import changes, classes, codec
from tailrace.weights.table import MAGIC, open_stream
from tailrace.weights.tensors import Tensor
from tests.weights.models import FILES, model, trained

REASONS = ("corrupt", "truncated", "codec", "base")
BASE = model()
NEW = trained(BASE, 1)
STREAM = codec.encode_delta(BASE, NEW)
KEYFRAME = codec.encode_keyframe(NEW, FILES)
PAYLOAD = zstandard.ZstdDecompressor().decompress(open_stream(STREAM)[1][0])
"""Of the only frame in steps."""


def test_every_truncation_is_refused() -> None:
    for length in range(len(STREAM)):
        with pytest.raises(UpdateRefused) as refused:
            codec.apply_delta(STREAM[:length], BASE)
        assert refused.value.reason == "truncated"
    with pytest.raises(UpdateRefused, match="corrupt"):
        codec.apply_delta(STREAM + b"\0", BASE)


def test_another_codec_is_refused_by_name() -> None:
    for other in (b"tailrace-gaps-1\n" + bytes(99), b"tailrace-classes-2\n" + bytes(99)):
        with pytest.raises(UpdateRefused) as refused:
            codec.apply_delta(other, BASE)
        assert refused.value.reason == "codec"
    with pytest.raises(UpdateRefused, match="corrupt"):
        codec.decode_keyframe(b"PK" + bytes(99))


@given(st.data())
@settings(deadline=None, max_examples=500)
def test_damage_is_refused_or_seen_in_the_digest(data: st.DataObject) -> None:
    """Bytes flipped, runs of the stream moved over others: nothing else is ever raised."""
    stream = bytearray(data.draw(st.sampled_from([STREAM, KEYFRAME])))
    places = st.integers(0, len(stream) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(places)
        if data.draw(st.booleans()):
            stream[at] ^= data.draw(st.integers(1, 255))
        else:
            source, length = data.draw(places), data.draw(st.integers(1, 40))
            stream[at : at + length] = stream[source : source + length]
    try:
        codec.apply_delta(bytes(stream), BASE, with_undo=True)
        codec.decode_keyframe(bytes(stream))
    except UpdateRefused as refused:
        assert refused.reason in REASONS


@given(st.data())
@settings(deadline=None, max_examples=1000)
def test_a_damaged_payload_is_refused_or_is_another_one(data: st.DataObject) -> None:
    """Behind zstd's own checks: every number of a payload may lie."""
    payload = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(payload) - 1)))
        payload[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 254, 255]))
    if data.draw(st.booleans()):
        payload = payload[: data.draw(st.integers(0, len(payload)))]
    parts = open_stream(STREAM)[0].frames[0].parts
    weights = sum(part.count for part in parts)
    by = changes.rule("bfloat16")
    try:
        found = classes.parse(memoryview(bytes(payload)), np.dtype("<u2"), weights, by)
    except ValueError:
        return
    assert (found.steps != 0).all()
    old = [part.of(BASE[part.name]) for part in parts]
    new = [np.empty_like(bits) for bits in old]
    try:
        undo = changes.put(old, new, by, found, with_undo=True)
    except ValueError:
        return
    assert undo is not None
    again = [np.empty_like(bits) for bits in old]
    changes.put(new, again, by, undo, with_undo=False)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(again, old, strict=True))


def frame(*parts: list[object], form: str = "plain", dtype: str = "bfloat16") -> list[object]:
    return [form, dtype, list(parts)]


W = ["w", [4], 0, 4]


@pytest.mark.parametrize(
    ("entry", "payload_bytes", "reason"),
    [
        (frame(["embed.weight", [64, 32], 0, 2048], form="classes"), 8, "corrupt"),
        (frame(W, form="classes"), 8, "base"),
        (frame(["embed.weight", [2048], 0, 2048], form="classes"), 8, "base"),
        (frame(["layer.0.scale", [32], 0, 32], form="classes"), 8, "base"),
        (frame(W, form="spiral"), 8, "corrupt"),
        (frame(), 0, "corrupt"),
        (frame(W, dtype="bfloat17"), 8, "corrupt"),
        (frame(W, dtype="float32"), 8, "corrupt"),
        (frame(W), 9, "corrupt"),
        (frame(["w", [-4], 0, 4]), 8, "corrupt"),
        (frame(["w", [-2, -2], 0, 4]), 8, "corrupt"),
        (frame(["w", [4], 1, 4]), 8, "corrupt"),
        (frame(["w", [4], -1, 4]), 8, "corrupt"),
        (frame(["w", [9], 0, 4]), 8, "corrupt"),
        (frame(["w", [4], 0, 2]), 4, "corrupt"),
        (frame(["w", [4], 2, 2]), 4, "corrupt"),
        (frame(["w", [4], 0, -4]), 8, "corrupt"),
        (frame(W, W), 16, "corrupt"),
        (frame(["w", [4], 0, 2], ["w", [2, 2], 2, 2]), 8, "corrupt"),
        (frame(["w", [1 << 60], 0, 1 << 60]), 8, "corrupt"),
        (frame(["w", [1 << 25], 0, 1 << 25]), 1 << 26, "corrupt"),
        ([*frame(W), 1], 8, "corrupt"),
        (["plain", "bfloat16", [["w", [4], 0]]], 8, "corrupt"),
    ],
)
def test_a_lying_table_is_refused(entry: list[object], payload_bytes: int, reason: str) -> None:
    with pytest.raises(UpdateRefused) as refused:
        codec.apply_delta(_forged(entry, payload_bytes), BASE)
    assert refused.value.reason == reason


def test_a_true_table_of_our_own_is_taken() -> None:
    after = codec.apply_delta(_forged(frame(W), 8), {}).tensors
    assert after["w"].shape == (4,)
    assert after["w"].bits.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("removed", [["norm.weight", "norm.weight"], ["w"], ["nowhere"]])
def test_lying_removals_are_refused(removed: list[str]) -> None:
    with pytest.raises(UpdateRefused) as refused:
        codec.apply_delta(_forged(frame(W), 8, removed), BASE)
    assert refused.value.reason == ("base" if removed == ["nowhere"] else "corrupt")


def test_large_numbers_allocate_nothing() -> None:
    """A table of 1 GiB of weights in a kilobyte, in frames that zstd could not make of it."""
    weights = 1 << 24
    entries = [
        [9, 2 * weights, *frame(["w", [32 * weights], n * weights, weights])] for n in range(32)
    ]
    stream = _stream({"kind": "delta", "frames": entries}, bytes(9 * 32))
    tracemalloc.start()
    with pytest.raises(UpdateRefused, match="corrupt"):
        codec.apply_delta(stream, {})
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 300, 1, 1, 0],
        [2, 5, 1, 1, 0, 5, 1, 1, 0],
        [2, 6, 1, 1, 0, 5, 1, 1, 0],
        [1, 5, 0, 0, 0],
        [1, 5, 2, 1, 0],
        [1, 5, 1, 99, 1],
        [1, 5, 1, 1, 4],
        [257],
        [1 << 31],
        [1, 5, 1 << 31, 1 << 31, 3],
    ],
)
def test_lying_classes_are_refused(numbers: list[int]) -> None:
    payload = np.array(numbers, "<u4").tobytes() + bytes(8)
    with pytest.raises(ValueError):
        classes.parse(memoryview(payload), np.dtype("<u2"), 64, changes.rule("bfloat16"))


def test_the_wrong_base_is_refused_where_a_class_is_too_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it is for the digest to see."""
    other = BASE | {"embed.weight": Tensor.of("bfloat16", (64, 32), np.zeros(2048, np.uint16))}
    for compiled in (changes.compiled, lambda: None):
        monkeypatch.setattr(changes, "compiled", compiled)
        with pytest.raises(UpdateRefused, match="corrupt"):
            codec.apply_delta(STREAM, other)


def _forged(entry: list[object], payload_bytes: int, removed: list[str] | None = None) -> bytes:
    """A stream with a table of our own over one frame of zeros."""
    packed = zstandard.ZstdCompressor().compress(bytes(min(payload_bytes, 1 << 20)))
    table = {"kind": "delta", "frames": [[len(packed), payload_bytes, *entry]]}
    return _stream(table | {"removed": removed or []}, packed)


def _stream(table: dict[str, object], packed: bytes) -> bytes:
    text = json.dumps(table).encode()
    packed_text = zstandard.ZstdCompressor().compress(text)
    lengths = len(packed_text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return MAGIC + lengths + packed_text + packed
