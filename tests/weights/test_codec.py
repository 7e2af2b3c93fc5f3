"""The codec: a delta and its undo are exact, by any loop, in any shard, on every bit pattern."""

from collections.abc import Callable
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tailrace.errors import UpdateRefused
from tailrace.weights import changes, classes, codec
from tailrace.weights.table import FRAME_WEIGHTS, open_stream
from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors
from tests.weights.models import FILES, model, same, tensor, trained

DTYPES = sorted(ITEM_BYTES)
FIXTURE = HealthCheck.function_scoped_fixture
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


@pytest.fixture(params=["compiled", "numpy"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: with numba, and as if it were not there."""
    if request.param == "numpy":
        monkeypatch.setattr(changes, "compiled", lambda: None)
    return str(request.param)


@given(pairs(), st.sampled_from([7, 64, 1 << 24]), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=120, suppress_health_check=[FIXTURE])
def test_a_delta_and_its_undo_are_exact(
    loops: str, models: tuple[Tensors, Tensors], frame_weights: int, threads: int
) -> None:
    base, new = models
    stream = codec.encode_delta(base, new, threads=threads, frame_weights=frame_weights)
    applied = codec.apply_delta(stream, base, with_undo=True, threads=threads)
    assert same(applied.tensors, new)
    assert same(codec.apply_delta(stream, base).tensors, new)
    assert applied.undo is not None
    assert same(codec.apply_delta(applied.undo, new).tensors, base)
    keyframe = codec.encode_keyframe(new, FILES, threads=threads, frame_weights=frame_weights)
    tensors, files = codec.decode_keyframe(keyframe, threads=threads)
    assert same(tensors, new)
    assert files == FILES


@given(pairs(), st.sampled_from([7, 64, 1 << 24]))
@settings(deadline=None)
def test_both_loops_make_the_same_streams(
    models: tuple[Tensors, Tensors], frame_weights: int
) -> None:
    base, new = models
    made = []
    for compiled in (changes.compiled, lambda: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(changes, "compiled", compiled)
            stream = codec.encode_delta(base, new, frame_weights=frame_weights)
            made.append((stream, codec.apply_delta(stream, base, with_undo=True).undo))
    assert made[0] == made[1]


@given(pairs(), st.data(), st.sampled_from([7, 64, 1 << 24]))
@settings(deadline=None)
def test_a_shard_is_what_the_whole_has_of_it(
    models: tuple[Tensors, Tensors], data: st.DataObject, frame_weights: int
) -> None:
    base, new = models
    names = data.draw(st.sets(st.sampled_from(["t0", "t1", "t2", "t3", "other"])))
    stream = codec.encode_delta(base, new, frame_weights=frame_weights)
    wanted = {name: new[name] for name in names if name in new}
    needed = {name: base[name] for name in codec.needed(stream, names) if name in base}
    assert same(codec.apply_delta(stream, needed, names=names).tensors, wanted)
    keyframe = codec.encode_keyframe(new, {}, frame_weights=frame_weights)
    assert same(codec.decode_keyframe(keyframe, names=names)[0], wanted)


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 0xFFFF)), max_size=40),
    st.integers(0, 300),
)
@settings(deadline=None, suppress_health_check=[FIXTURE])
def test_gaps_of_every_length_and_steps_of_every_size(
    loops: str, moved: list[tuple[int, int]], tail: int
) -> None:
    gaps = [gap for gap, _ in moved]
    base = np.full(sum(gaps) + len(gaps) + tail, 0xFFF0, np.uint16)
    new = base.copy()
    at = -1
    for gap, value in moved:
        at += gap + 1
        new[at] = value
    _assert_exact(base, new)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_step_between_extreme_patterns(loops: str, dtype: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    for start in (0x0000, 0x8000, 0x7FC0, 0xFFFF, 0x0001):
        base = np.full(1 << 16, start, np.uint16)
        _assert_exact(base, every, dtype)
        spread = np.repeat(base, 3)
        moved = spread.copy()
        moved[::3] = every
        _assert_exact(spread, moved, dtype)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 65_535, 65_536, 100_000])
def test_gaps_around_the_escape(loops: str, gap: int) -> None:
    base = np.zeros(gap + 1, np.uint16)
    new = base.copy()
    new[gap] = 1
    _assert_exact(base, new)


def test_a_gap_as_long_as_a_frame(loops: str) -> None:
    base = np.zeros(FRAME_WEIGHTS, np.uint16)
    new = base.copy()
    new[-1] = 0xFFFF
    _assert_exact(base, new)


def _assert_exact(base: np.ndarray, new: np.ndarray, dtype: str = "bfloat16") -> None:
    """There and back, in steps whatever they cost."""
    by = changes.rule(dtype)
    found = changes.find([base], [new], by)
    payload = memoryview(b"".join(classes.sections(found)))
    assert len(payload) <= classes.most_bytes(base.size, 2)
    target = np.empty_like(base)
    parsed = classes.parse(payload, base.dtype, base.size, by)
    undo = changes.put([base], [target], by, parsed, with_undo=True)
    assert (target == new).all()
    assert undo is not None
    for mine, theirs in zip(undo, changes.find([new], [base], by), strict=True):
        assert np.array_equal(mine, theirs)


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


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_all_moved_by_little_goes_in_steps_and_all_else_in_bits(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values, other = (100 * rng.standard_normal((2, 20_000))).astype(dtype)
    near = (values + rng.integers(-2, 3, 20_000)).astype(dtype)
    forms = []
    for new in (near, other):
        models = [{"w": Tensor.of(dtype, (20_000,), v)} for v in (values, new)]
        stream = codec.encode_delta(*models)
        assert same(codec.apply_delta(stream, models[0]).tensors, models[1])
        assert len(stream) < len(codec.encode_keyframe(models[1], {})) + 100
        forms.append(open_stream(stream)[0].frames[0].form)
    assert forms == ["classes", "plain"]


def test_two_names_of_one_tensor_stay_equal() -> None:
    base = model()
    new = trained(base, 1)
    for models in (base, new):
        models["head.weight"] = models["embed.weight"]
    after = codec.apply_delta(codec.encode_delta(base, new), base, with_undo=True)
    assert same(after.tensors, new)
    assert after.undo is not None
    assert same(codec.apply_delta(after.undo, new).tensors, base)


def test_large_tensors_split_by_rows() -> None:
    base = {"w": tensor("bfloat16", (30, 32)), "long": tensor("bfloat16", (2, 150))}
    new = trained(base, 1, share=0.5)
    table, _ = open_stream(codec.encode_delta(base, new, frame_weights=100))
    rows = [part for frame in table.frames for part in frame.parts if part.name == "w"]
    assert [(part.start, part.count) for part in rows] == [(n * 96, 96) for n in range(10)]
    assert all(sum(part.count for part in frame.parts) <= 100 for frame in table.frames)


def test_rows_that_did_not_change_do_not_go() -> None:
    base = {"w": tensor("bfloat16", (30, 32))}
    bits = base["w"].bits.copy()
    bits[500] += 1
    new = {"w": Tensor.of("bfloat16", (30, 32), bits)}
    stream = codec.encode_delta(base, new, frame_weights=100)
    assert [part.start for frame in open_stream(stream)[0].frames for part in frame.parts] == [480]
    assert same(codec.apply_delta(stream, base).tensors, new)


def test_an_update_is_small() -> None:
    """Of weights whose few exponents say where they move."""
    rng = np.random.default_rng(0)
    masters = rng.standard_normal(1 << 20, np.float32) * np.float32(0.05)
    steps = rng.choice(np.array([-4e-5, 4e-5], np.float32), masters.size)
    base, new = (
        {"w": Tensor.of("bfloat16", (1 << 20,), (values.view(np.uint32) >> 16).astype(np.uint16))}
        for values in (masters, masters + steps)
    )
    changed = int((base["w"].bits != new["w"].bits).sum())
    assert 0.1 < changed / masters.size < 0.5
    assert len(codec.encode_delta(base, new)) < 0.45 * changed


def test_kinds_are_not_mixed_up() -> None:
    with pytest.raises(UpdateRefused, match="not a delta"):
        codec.apply_delta(codec.encode_keyframe(model(), {}), {})
    with pytest.raises(UpdateRefused, match="not a keyframe"):
        codec.decode_keyframe(codec.encode_delta({}, model()))


def test_file_names_stay_in_the_folder() -> None:
    for name in ("../x", "/etc/x", "", "..", "a/b"):
        with pytest.raises(UpdateRefused, match="file name"):
            codec.decode_keyframe(codec.encode_keyframe({}, {name: b"x"}))


def test_a_delta_needs_the_model_and_a_frame() -> None:
    """Four frames of 1 MiB weights: what lives beside the new model and the streams is far below
    the 8 MiB of one more model."""
    frame = 1 << 20
    base = {f"w{n}": tensor("bfloat16", (1024, 1024), n) for n in range(4)}
    new = trained(base, 1, share=0.03)
    stream = codec.encode_delta(base, new, frame_weights=frame)  # the loops are built by now
    undo = codec.apply_delta(stream, base, with_undo=True).undo
    assert undo is not None
    model_bytes = 4 * 2 * frame
    assert _peak(lambda: codec.encode_delta(base, new, frame_weights=frame)) < (
        2 * len(stream) + 3 * 2 * frame
    )
    assert _peak(lambda: codec.apply_delta(stream, base, with_undo=True)) < (
        model_bytes + 2 * len(undo) + 3 * 2 * frame
    )


def _peak(call: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held at once, beyond what was there."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
