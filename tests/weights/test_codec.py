from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights import codec, parts
from tailrace.weights.table import MAGIC, open_stream
from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors
from tests.weights.models import FILES, model, same, tensor, trained

DTYPES = sorted(ITEM_BYTES)
SHAPES = st.lists(st.integers(0, 17), max_size=3).map(tuple)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensors, Tensors]:
    """Two models: same, changed, reshaped, retyped, new and removed tensors, any bits."""
    base: Tensors = {}
    new: Tensors = {}
    for number in range(draw(st.integers(0, 5))):
        name = f"t{number}"
        dtype, shape = draw(st.sampled_from(["bfloat16", *DTYPES])), draw(SHAPES)
        old = tensor(dtype, shape, draw(st.integers(0, 99)))
        fate = draw(st.sampled_from(["same", "changed", "other", "new", "removed"]))
        if fate != "new":
            base[name] = old
        if fate == "removed":
            continue
        new[name] = old
        if fate == "other":
            new[name] = tensor(draw(st.sampled_from(DTYPES)), draw(SHAPES))
        elif fate == "changed":
            rng = np.random.default_rng(draw(st.integers(0, 99)))
            data = old.bits.view(np.uint8).copy()
            hit = rng.random(data.size) < draw(st.sampled_from([0.0, 0.01, 0.3, 0.7, 1.0]))
            data[hit] = rng.integers(0, 256, int(hit.sum()), np.uint8)
            new[name] = Tensor.of(dtype, shape, data)
    return base, new


@given(pairs(), st.sampled_from([7, 64, 1 << 22]))
@settings(deadline=None, max_examples=200)
def test_a_delta_is_exact(models: tuple[Tensors, Tensors], frame_weights: int) -> None:
    base, new = models
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "FRAME_WEIGHTS", frame_weights)
        stream = codec.encode_delta(base, new)
        keyframe = codec.encode_keyframe(new, FILES)
    applied = codec.apply_delta(stream, base, with_undo=True)
    assert same(applied.tensors, new)
    assert applied.undo is not None
    assert same(codec.apply_delta(applied.undo, new).tensors, base)
    tensors, files = codec.decode_keyframe(keyframe)
    assert same(tensors, new)
    assert files == FILES


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 0xFFFF)), max_size=40),
    st.integers(0, 300),
)
@settings(deadline=None)
def test_gaps_of_every_length_and_steps_of_every_size(
    changes: list[tuple[int, int]], tail: int
) -> None:
    gaps = [gap for gap, _ in changes]
    base = np.full(sum(gaps) + len(gaps) + tail, 0xFFF0, np.uint16)
    new = base.copy()
    at = -1
    for gap, value in changes:
        at += gap + 1
        new[at] = value
    _assert_exact(base, new)


def test_every_step_between_extreme_patterns() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    for start in (0x0000, 0x8000, 0x7FC0, 0xFFFF, 0x0001):
        base = np.full(1 << 16, start, np.uint16)
        _assert_exact(base, every)
        spread = np.repeat(base, 3)
        moved = spread.copy()
        moved[::3] = every
        _assert_exact(spread, moved)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 100_000])
def test_gaps_around_the_escape(gap: int) -> None:
    base = np.zeros(gap + 1, np.uint16)
    new = base.copy()
    new[gap] = 1
    _assert_exact(base, new)


def _assert_exact(base: np.ndarray, new: np.ndarray) -> None:
    form, sections = parts.step(base, new)
    target = base.copy()
    parts.put(form, [memoryview(section) for section in sections], target)
    assert (target == new).all()


def test_unchanged_tensors_are_shared_and_cost_nothing() -> None:
    base = model()
    new = dict(base) | {"norm.weight": trained(base, 1)["norm.weight"]}
    stream = codec.encode_delta(base, new)
    assert [part.name for frame in open_stream(stream)[0].frames for part in frame.parts] == [
        "norm.weight"
    ]
    after = codec.apply_delta(stream, base).tensors
    assert after["embed.weight"] is base["embed.weight"]
    equal_copy = {n: Tensor.of(t.dtype, t.shape, t.bits.copy()) for n, t in base.items()}
    assert open_stream(codec.encode_delta(base, equal_copy))[0].frames == []


def test_the_base_stays_as_it_was() -> None:
    base = model()
    before = {name: t.bits.tobytes() for name, t in base.items()}
    codec.apply_delta(codec.encode_delta(base, trained(base, 1)), base)
    assert before == {name: t.bits.tobytes() for name, t in base.items()}


def test_dense_where_most_weights_change() -> None:
    base = {"w": tensor("bfloat16", (1000,))}
    few, most = trained(base, 1, share=0.2), trained(base, 1, share=0.9)
    forms = [
        open_stream(codec.encode_delta(base, new))[0].frames[0].parts[0].form for new in (few, most)
    ]
    assert forms == ["gaps", "dense"]


def test_large_tensors_split_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "FRAME_WEIGHTS", 100)
    base = {"w": tensor("bfloat16", (30, 32)), "long": tensor("bfloat16", (2, 150))}
    table, _ = open_stream(codec.encode_delta(base, trained(base, 1, share=0.5)))
    rows = [part for frame in table.frames for part in frame.parts if part.name == "w"]
    assert [(part.start, part.count) for part in rows] == [(n * 96, 96) for n in range(10)]
    assert all(sum(part.count for part in frame.parts) <= 100 for frame in table.frames)


def test_an_update_is_small() -> None:
    base = {"w": tensor("bfloat16", (500, 1000))}
    new = trained(base, 1, share=0.05)
    changed = int((base["w"].bits != new["w"].bits).sum())
    assert len(codec.encode_delta(base, new)) < 1.25 * changed


def test_every_truncation_is_refused() -> None:
    base = model()
    stream = codec.encode_delta(base, trained(base, 1))
    for length in range(0, len(stream), 7):
        with pytest.raises(UpdateRefused) as refused:
            codec.apply_delta(stream[:length], base)
        assert refused.value.reason in ("truncated", "corrupt")
    with pytest.raises(UpdateRefused, match="corrupt"):
        codec.apply_delta(stream + b"\0", base)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_flipped_byte_is_refused_or_seen_in_the_digest(data: st.DataObject) -> None:
    base = model()
    new = trained(base, 1)
    stream = bytearray(codec.encode_delta(base, new))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    try:
        assert codec.apply_delta(bytes(stream), base).tensors.keys() == new.keys()
    except UpdateRefused as refused:
        assert refused.reason in ("corrupt", "truncated", "base")


WEIGHTS = ["w", "bfloat16", [4], 0, 4, "plain", [8, 0, 0]]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (["w", "bfloat16", [4], 0, 4, "gaps", [8, 0, 0]], "base"),
        (["w", "bfloat17", [4], 0, 4, "plain", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [-4], 0, 4, "plain", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [4], 1, 4, "plain", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [9], 0, 4, "plain", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [1 << 60], 0, 4, "plain", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [4], 0, 4, "plain", [9, -1, 0]], "corrupt"),
        (["w", "bfloat16", [4], 0, 4, "spiral", [8, 0, 0]], "base"),
        (["embed.weight", "bfloat16", [64, 32], 0, 2048, "spiral", [8, 0, 0]], "corrupt"),
        (["embed.weight", "bfloat16", [64, 32], 0, 2048, "dense", [8, 0, 0]], "corrupt"),
        (["embed.weight", "bfloat16", [64, 32], 0, 7, "gaps", [8, 0, 0]], "corrupt"),
        (["layer.0.scale", "float32", [32], 0, 32, "gaps", [8, 0, 0]], "corrupt"),
        (["w", "bfloat16", [4], 0, 4], "corrupt"),
    ],
)
def test_a_lying_table_is_refused(part: list[object], reason: str) -> None:
    with pytest.raises(UpdateRefused) as refused:
        codec.apply_delta(_forged([part]), model())
    assert refused.value.reason == reason


def test_repeated_and_missing_parts_are_refused() -> None:
    assert codec.apply_delta(_forged([WEIGHTS]), {}).tensors["w"].shape == (4,)
    half = ["w", "bfloat16", [4], 0, 2, "plain", [4, 0, 0]]
    for parts_ in ([WEIGHTS, WEIGHTS], [half], [half, half]):
        with pytest.raises(UpdateRefused, match="corrupt"):
            codec.apply_delta(_forged(parts_), {})


def test_kinds_are_not_mixed_up() -> None:
    with pytest.raises(UpdateRefused, match="not a delta"):
        codec.apply_delta(codec.encode_keyframe(model(), {}), {})
    with pytest.raises(UpdateRefused, match="not a keyframe"):
        codec.decode_keyframe(codec.encode_delta({}, model()))


def test_file_names_stay_in_the_folder() -> None:
    for name in ("../x", "/etc/x", "", "..", "a/b"):
        with pytest.raises(UpdateRefused, match="file name"):
            codec.decode_keyframe(codec.encode_keyframe({}, {name: b"x"}))


def _forged(parts_: list[list[object]]) -> bytes:
    """A stream with a table of our own over a payload of zeros."""
    import json

    payload = bytes(8 * len(parts_))
    if parts_[0][6:] == [[4, 0, 0]]:
        payload = bytes(4 * len(parts_))
    packed = zstandard.ZstdCompressor().compress(payload)
    table = {"kind": "delta", "frames": [[len(packed), len(payload), parts_]]}
    text = json.dumps(table).encode()
    packed_text = zstandard.ZstdCompressor().compress(text)
    lengths = len(packed_text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return MAGIC + lengths + packed_text + packed
