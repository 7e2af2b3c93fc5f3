"""What the engine lays beside a version, for a vLLM that writes single weights."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import resource

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from services.engine.patch import patch
from services.engine.refusals import AGAIN_S
from services.engine.slot import Slot
from tailrace.weights.tensors import ITEM_BYTES, Tensor, digest
from tests.engine.models import canary, tensors
from tests.engine.room import Room
from tests.engine.unpacked import changed


@given(
    st.lists(st.sampled_from(sorted(ITEM_BYTES)), min_size=1, max_size=4),
    st.integers(1, 300),
    st.integers(0, 2**32),
)
def test_a_patch_tells_each_change(dtypes: list[str], size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    old = {
        f"{at}": Tensor.of(dtype, (size,), random.integers(0, 256, size * ITEM_BYTES[dtype], "u1"))
        for at, dtype in enumerate(dtypes)
    }
    new = changed(old, [name for name in old if random.random() < 0.5], seed, share=0.001)
    found = patch(old, new)
    if found is None:
        return
    for name, tensor in old.items():
        now = tensor.bits.view(f"<u{ITEM_BYTES[tensor.dtype]}").copy()
        if f"after/{name}" in found:
            parts = [found[f"{part}/{name}"].numpy() for part in ("positions", "before", "after")]
            places, before, after = parts
            assert np.array_equal(now[places], before.view(now.dtype))
            assert not np.any(before == after)
            now[places] = after.view(now.dtype)
        assert now.tobytes() == new[name].bits.tobytes()


def test_what_no_patch_tells() -> None:
    one = Tensor.of("bfloat16", (64,), np.arange(64, dtype=np.uint16))
    other = Tensor.of("bfloat16", (64,), np.arange(64, dtype=np.uint16) + np.uint16(1))
    few = one.bits.copy()
    few[:4] += 7
    assert patch({"a": one}, {"a": one}) == {}
    assert patch({"a": one}, {"a": Tensor.of("bfloat16", (64,), few)}) is not None
    assert patch({"a": one}, {"a": other}) is None, "everything changed"
    assert patch({"a": one}, {"a": one, "b": one}) is None, "a tensor came"
    assert patch({"a": one, "b": one}, {"a": one}) is None, "a tensor went"
    assert patch({"a": one}, {"a": Tensor.of("float16", (64,), one.bits.copy())}) is None
    assert patch({"a": one}, {"a": Tensor.of("bfloat16", (8, 8), one.bits.copy())}) is None


class Laid:
    """A vLLM's update calls: of each the weights that its patch is for, None without one."""

    def __init__(self, room: Room) -> None:
        self.bases: list[str | None] = []
        self.update, room.vllm.update = room.vllm.update, self._update  # type: ignore[method-assign]

    def _update(self, path: str, mark: str) -> None:
        beside = Path(path).with_suffix(".patch")
        self.bases.append(None)
        if beside.exists():
            text = beside.read_bytes()
            marks = json.loads(text[8 : 8 + int.from_bytes(text[:8], "little")])["__metadata__"]
            assert marks["digest"] == mark
            self.bases[-1] = marks["base"]
        self.update(path, mark)
        Path(path).with_suffix(".patchable").touch()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    folder = tmp_path / "slot"
    folder.mkdir()
    found = Room(folder)
    yield found
    found.close()


def test_patches_are_laid_where_it_is_sure_what_vllm_holds(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [digest(tensors(number)) for number in range(5)]
    first = Laid(room)
    room.trainer.keyframe(0)
    room.turns(2)
    room.trainer.delta(1)
    room.turns(2)
    assert room.serves(1, 1) and first.bases == [None, marks[0]]
    # A canary that differs: what is held may be other weights than it should be.
    room.vllm.logprobs = {marks[2]: [-5.0, -5.0]}
    room.trainer.delta(2, canary=canary([-1.0, -1.0]))
    room.turns(2)
    assert room.serves(1, 1) and first.bases[2:] == [marks[1], None]
    room.trainer.delta(3)
    room.turns(2)
    assert room.serves(3, 3) and first.bases[4:] == [marks[1]]
    # Another vLLM holds what it was started with.
    start, others = room.child.start, []

    def start_another() -> None:
        start()
        others.append(Laid(room))

    monkeypatch.setattr(room.child, "start", start_another)
    room.vllm.dead, room.child.code = True, 1
    room.turns(3, seconds=10)
    (second,) = others
    assert room.serves(3, 3) and second.bases == [None]
    room.trainer.delta(4)
    room.turns(2)
    assert room.serves(4, 4) and second.bases[-1] == marks[3]


def test_a_mark_that_is_not_ours_to_remove(tmp_path: Path) -> None:
    slot = Slot([tmp_path], "x")
    one, two, three = (tensors(number) for number in (1, 2, 3))
    mark = slot.write(one, "one").with_suffix(".patchable")
    mark.mkdir()  # nobody can unlink a folder
    slot.clear()
    assert list(tmp_path.iterdir()) == [mark]
    assert slot.write(two, "two", "one").with_suffix(".patch").exists()
    # The next process takes it for no word of its own vLLM.
    later = Slot([tmp_path], "x")
    assert list(tmp_path.iterdir()) == [mark]
    assert later.write(one, "one").stem != mark.stem
    later.clear()
    assert not later.write(two, "two", "one").with_suffix(".patch").exists()
    later.clear()
    assert not later.write(three, "three", "two").with_suffix(".patch").exists()


def test_a_patch_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    # Of many small tensors with one change each the patch is larger than the whole.
    old = {f"{at}": Tensor.of("uint8", (16,), np.zeros(16, np.uint8)) for at in range(100)}
    first = np.arange(16) == 0
    new = {name: Tensor.of("uint8", (16,), first.astype(np.uint8)) for name in old}
    slot = Slot([tmp_path], "x")
    whole = slot.write(old, "old")
    room_bytes = whole.stat().st_size + 1000
    whole.with_suffix(".patchable").touch()
    slot.clear()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        path = slot.write(new, "new", "old")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    path.with_suffix(".patchable").touch()
    assert slot.write(old, "old", "new").with_suffix(".patch").stat().st_size > room_bytes


def test_a_version_without_room_is_tried_again(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    room.folder.rmdir()
    room.trainer.delta(1)
    room.turns(2)
    assert room.acks()[-1][:2] == ("refused", 1)
    room.folder.mkdir()
    room.turns(2)
    assert room.serves(0, 0)
    room.turns(2, seconds=AGAIN_S)
    assert room.serves(1, 1)


def test_no_patch_for_a_vllm_that_took_a_whole_version_without_a_mark(tmp_path: Path) -> None:
    slot = Slot([tmp_path], "x")

    def lay(number: int, base: int | None, *, mark: bool) -> bool:
        path = slot.write(tensors(number), str(number), None if base is None else str(base))
        laid = path.with_suffix(".patch").exists()
        if mark:
            path.with_suffix(".patchable").touch()
        slot.clear()
        return laid

    assert not lay(1, None, mark=True) and lay(2, 1, mark=False), "a patch leaves no mark"
    assert lay(3, 2, mark=True) and not lay(4, None, mark=False), "another vLLM"
    assert not lay(5, 4, mark=True) and lay(6, 5, mark=False)
