"""Sparse patches in place: bit for bit what a whole reload gives, or a whole reload."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from services.engine.slot import Slot, _write
from services.engine.swap import Load
from tailrace.weights import folder
from tailrace.weights.tensors import Tensor, Tensors, digest
from tests.engine.real import TOKENS, Reference, distance, real_vllm, write_shape
from tests.engine.unpacked import KEEP, Worker, changed, worker

CASES = [("llama", True, 0, 1), ("qwen2", False, 1, 2), ("gemma3", True, 0, 1)]
"""Family, tied, rank, ranks."""


class Scene:
    """A model in this process, and what it holds."""

    def __init__(self, made: Worker, tensors: Tensors) -> None:
        self.worker, self.held = made, tensors
        self.digest = digest(tensors)

    def load(self, tensors: Tensors, *, sure: bool = True) -> bool:
        """A swap to other weights; was it a patch?"""
        patched = self.worker.load(tensors, self.digest if sure else None)
        self.held, self.digest = tensors, digest(tensors)
        return patched

    def few(self, seed: int, share: float = 0.01) -> Tensors:
        """Other weights, a few places of each tensor away from those that are held."""
        return changed(self.held, sorted(self.held), seed, share)

    def is_reloaded(self) -> bool:
        """Is everything in the model what a whole reload would leave?"""
        found = self.worker.bits()
        self.worker.restart()
        assert not self.load(self.held)
        return found == self.worker.bits()


@contextlib.contextmanager
def scene(where: Path, shape: str, *, tied: bool, **more: Any) -> Iterator[Scene]:
    model = write_shape(where / "model", shape, tied=tied)
    with worker(model, where, **more) as made:
        found = Scene(made, dict(folder.read(model)))
        assert not found.load(found.held), "the first load is a whole one"
        yield found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("llama"), "llama", tied=True) as found:
        yield found


@pytest.mark.parametrize(("shape", "tied", "rank", "ranks"), CASES)
def test_patched_is_reloaded_bit_for_bit(
    shape: str, tied: bool, rank: int, ranks: int, tmp_path: Path
) -> None:
    with scene(tmp_path, shape, tied=tied, rank=rank, ranks=ranks) as found:
        names = sorted(found.held)

        @settings(max_examples=6, deadline=None)
        @given(
            st.sets(st.sampled_from(names)),
            st.integers(0, 2**32),
            st.sampled_from([0.0, 0.001, 0.03]),
        )
        def patched_is_reloaded(some: set[str], seed: int, share: float) -> None:
            assert found.load(changed(found.held, sorted(some), seed, share))
            assert found.load(changed(found.held, names, seed + 1, share)), "one after another"
            assert found.is_reloaded()

        patched_is_reloaded()


def test_what_is_no_patch_is_a_whole_load(llama: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama.load(llama.few(1))
    assert not llama.load(llama.few(2), sure=False), "the engine is not sure of what is held"
    assert not llama.load(llama.few(3, share=0.2)), "much changed"
    llama.worker.restart()
    assert not llama.load(llama.few(4)), "the first of a process"
    assert llama.is_reloaded() and llama.load(llama.few(5))
    # Weights that changed by another way, where nothing tells but themselves.
    norm = dict(llama.worker.model.named_parameters())["model.norm.weight"]
    norm.data.zero_()
    assert not llama.load(llama.few(6, share=0.05)) and llama.is_reloaded()
    # A file of another version touches nothing: the next patch finds what it is for.
    path = Slot([llama.worker.folder], "other").write(llama.few(7), "seven")
    with pytest.raises(ValueError, match="holds"):
        llama.worker.plugin.update_weights({"path": str(path), "digest": "eight"})
    assert llama.load(llama.few(8)) and llama.is_reloaded()


def test_why_a_model_takes_no_patches_is_said_once(
    llama: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llama.worker.restart()
    norm = llama.worker.model.model.norm
    with monkeypatch.context() as patched:
        patched.setattr(norm, "process_weights_after_loading", lambda: None, raising=False)
        assert not llama.load(llama.few(13)) and not llama.load(llama.few(14))
    said = [record for record in caplog.records if record.name == "tailrace.plugins.transfer"]
    (warning,) = [record for record in said if record.levelname == "WARNING"]
    assert "RMSNorm makes something of its weights" in warning.getMessage()
    assert not llama.load(llama.few(15)) and llama.load(llama.few(16))


def test_a_patch_that_breaks_half_way_is_followed_by_a_whole_load(
    llama: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = llama.worker.plugin._places
    assert places is not None
    targets, calls = places._targets, 0

    def break_half_way(patch: Any, name: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1.5 * len(llama.held):
            raise RuntimeError("injected")
        return targets(patch, name)

    assert len(llama.held) % 2 == 0
    with monkeypatch.context() as patched:
        patched.setattr(places, "_targets", break_half_way)
        before = llama.worker.bits()
        assert not llama.load(llama.few(9))
        assert calls == 1.5 * len(llama.held) and before != llama.worker.bits()
    assert llama.is_reloaded() and llama.load(llama.few(10))
    # Nor does the whole load: nothing but another vLLM helps.
    held = llama.held
    with monkeypatch.context() as patched:
        patched.setattr(llama.worker.plugin._places, "apply", lambda patch: 1 / 0)
        patched.setattr(llama.worker.model, "load_weights", lambda weights: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            llama.load(llama.few(11))
    with pytest.raises(RuntimeError, match="half-loaded"):
        llama.worker.plugin.start_weight_update()
    llama.worker.restart()
    assert not llama.load(held) and llama.is_reloaded()


def test_an_update_whose_end_is_missing_is_no_base(llama: Scene) -> None:
    plugin, slot = llama.worker.plugin, llama.worker.slot
    few, mark = llama.few(12), digest(llama.few(12))
    path = slot.write(few, mark, llama.digest)
    plugin.start_weight_update()
    plugin.update_weights({"path": str(path), "digest": mark})
    assert plugin._patched
    plugin.update_weights({"path": str(path), "digest": mark})
    assert not plugin._patched, "the same again, as a swap does after trouble"
    plugin.finish_weight_update()
    llama.held, llama.digest = few, mark
    assert llama.is_reloaded()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.soak), pytest.param("gpu", marks=pytest.mark.gpu)],
)
def test_a_real_vllm_serves_what_was_patched(device: str, tmp_path: Path) -> None:
    model = write_shape(tmp_path / "model", "qwen2", tied=False)
    base = dict(folder.read(model))
    moved = {name: slightly(tensor) for name, tensor in base.items()}
    more: dict[str, Any] = {"cores": None} if device == "gpu" else {"vllm_arguments": KEEP}
    with real_vllm(model, tmp_path, **more) as vllm:
        slot = Slot([tmp_path], "patches")

        def load(version: int, tensors: Tensors, held: Tensors | None) -> list[float]:
            path = slot.write(tensors, digest(tensors), held and digest(held))
            assert path.with_suffix(".patch").exists() == (held is not None)
            if held is not None:
                # What is served must come from the patch: the file has nothing new.
                _write(path, held, {"digest": digest(tensors)})
            vllm.swap().load(Load(version=version, digest=digest(tensors), path=str(path)))
            slot.clear()
            return vllm.admin.score(TOKENS)

        was, whole = load(1, base, None), load(2, moved, None)
        assert load(3, base, None) == was != whole
        assert load(4, moved, base) == whole and load(5, base, moved) == was
        assert distance(whole, Reference(model).logprobs(moved, TOKENS)) < 0.1


def slightly(tensor: Tensor) -> Tensor:
    """Every 50th element is half as large as another one."""
    bits = tensor.bits.copy()
    bits[::50] = np.roll(bits, 1)[::50] - np.uint16(1 << 7)
    return Tensor.of(tensor.dtype, tensor.shape, bits)
