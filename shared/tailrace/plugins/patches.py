"""What changed between two versions, into the running model: in place, nothing else touched.

In: a patch, the safetensors file that the engine process may lay beside a version. For each tensor
that changed it has ``positions/NAME`` (int32, flat in the checkpoint's shape), ``before/NAME`` and
``after/NAME`` (their bits, as integers); its metadata name the ``base`` and the ``digest`` of the
weights that it leads from and to. Out: the model's parameters, as a whole load would leave them.

Where a weight lives is learnt from the model itself: its loader runs over placeholders without
content, and every copy that it would make is noted, not made. So fused, sharded and tied parameters
need no names here. Invariants: a model is taken only when these copies fill each of its parameters
exactly once, bit by bit, and nothing was made of them afterwards; no weight is touched before every
changed place was seen to hold what the patch says was there. Called by :mod:`.transfer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

SUFFIX = ".patch"
"""In place of a version's own suffix."""
TAKEN = ".patchable"
"""The suffix of the empty file that tells the engine process to lay patches from now on."""

_TRIED = frozenset(("LlamaForCausalLM", "Qwen2ForCausalLM", "Gemma3ForCausalLM"))
"""Other models may compute something of their weights where nobody sees it."""
_AS_THEY_COME = (type(None), UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Its first element, and how many there are, along each axis."""


class Unpatchable(Exception):
    """Why a model takes whole versions only."""


class Mismatch(Exception):
    """The model does not hold what the patch is for. Nothing was touched."""


class Piece(NamedTuple):
    """A box of a checkpoint's tensor, and where its bits live."""

    start: tuple[int, ...]
    cells: torch.Tensor
    """A view of the parameter, in the shape of the box, as integers."""


class Places:
    """Where each weight of a checkpoint lives in one model."""

    def __init__(self, model: Any, checkpoint: Mapping[str, torch.Tensor]) -> None:
        """``checkpoint``: placeholders (on ``meta``) for what was loaded last. Raises Unpatchable,
        or whatever the model's loader raises when its tensors have no content."""
        if type(model).__name__ not in _TRIED:
            raise Unpatchable(f"{type(model).__name__} was not tried")
        for layer in model.modules():
            _check_layer(layer)
        self._checkpoint = checkpoint
        self._pieces: dict[str, list[Piece]] = {name: [] for name in checkpoint}
        names = {_storage(tensor): name for name, tensor in checkpoint.items()}
        parameters = {_storage(parameter): parameter for parameter in model.parameters()}
        if len(parameters) != len(list(model.parameters())):
            raise Unpatchable("two parameters share their memory")
        filled: dict[int, list[Box]] = {storage: [] for storage in parameters}
        with torch.no_grad(), _Writes() as writes:
            model.load_weights(iter(checkpoint.items()))
        for target, source in writes.found:
            storage = _storage(target)
            if storage not in parameters:
                raise Unpatchable("its loader writes to what is no parameter")
            filled[storage].append(_box(target, parameters[storage]))
            if source is None:
                continue
            if (target.shape, target.dtype) != (source.shape, source.dtype):
                raise Unpatchable(f"{source.dtype} is loaded as {target.dtype}")
            name = names.get(_storage(source))
            if name is None:
                raise Unpatchable("its loader computes something of a weight")
            start, _ = _box(source, checkpoint[name])
            cells = target.detach().view(_INTEGERS[target.itemsize])
            self._pieces[name].append(Piece(start, cells))
        for storage, parameter in parameters.items():
            if not _exact(filled[storage], parameter.numel()):
                raise Unpatchable(f"{list(parameter.shape)} are not loaded exactly once")

    def apply(self, patch: Any) -> int:
        """Write what changed; returns how many weights of the checkpoint that are.

        ``patch``: an open safetensors file. Raises Mismatch with the model as it was; after any
        other error nobody knows what it holds.
        """
        prefix = "after/"
        names = [key.removeprefix(prefix) for key in patch.keys() if key.startswith(prefix)]
        strange = set(names) - self._pieces.keys()
        if strange:
            raise Mismatch(f"no tensors {sorted(strange)}")
        wrong = [
            (cells[index] != before).any()
            for name in names
            for cells, index, before, _ in self._targets(patch, name)
        ]
        if wrong and bool(torch.stack(wrong).any()):
            raise Mismatch("other weights than the patch's base")
        for name in names:
            for cells, index, _, after in self._targets(patch, name):
                cells[index] = after
        return sum(patch.get_tensor(prefix + name).numel() for name in names)

    def _targets(
        self, patch: Any, name: str
    ) -> Iterator[tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]]:
        """Each view that holds some of the changed weights, their places in it, and their bits."""
        parts = [patch.get_tensor(f"{part}/{name}") for part in ("positions", "before", "after")]
        positions, before, after = parts
        shape, kind = self._checkpoint[name].shape, _INTEGERS[self._checkpoint[name].itemsize]
        # On an accelerator an index outside would end the process, not raise.
        fits = not positions.numel() or 0 <= positions.min() <= positions.max() < shape.numel()
        alike = positions.shape == before.shape == after.shape
        if not (fits and alike and before.dtype == after.dtype == kind):
            raise Mismatch(f"{name}: {positions.numel()} positions that are not its own")
        for start, cells in self._pieces[name]:
            at, old, new = (part.to(cells.device) for part in parts)
            index = torch.unravel_index(at.long(), shape)
            if cells.shape != shape:
                axes = list(zip(index, start, cells.shape, strict=True))
                inside = torch.ones_like(at, dtype=torch.bool)
                for axis, first, count in axes:
                    inside &= (axis >= first) & (axis < first + count)
                index = tuple(axis[inside] - first for axis, first, _ in axes)
                old, new = old[inside], new[inside]
            yield cells, index, old, new


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes (target, source) of each write, source None for a constant, and makes none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default or func is torch.ops.aten.fill_.Scalar:
            target, source = args[0], args[1]
            if target.numel():
                tensor = source if isinstance(source, torch.Tensor) else None
                self.found.append((target, tensor))
            return target
        if func._schema.is_mutable:
            raise Unpatchable(f"its loader calls {func}")
        return func(*args, **(kwargs or {}))


def _check_layer(layer: torch.nn.Module) -> None:
    """Raises Unpatchable when something else may have been made of the layer's weights."""
    name, method = type(layer).__name__, type(getattr(layer, "quant_method", None))
    if method not in _AS_THEY_COME:
        raise Unpatchable(f"{name} has {method.__name__}")
    if hasattr(layer, "process_weights_after_loading") and type(layer) is not Attention:
        raise Unpatchable(f"{name} makes something of its weights")
    # On a CPU vLLM gives a layer a function, which keeps what it packed in its closure.
    if getattr(getattr(layer, "cpu_linear", None), "__closure__", None):
        raise Unpatchable(f"{name} is repacked")


def _storage(tensor: torch.Tensor) -> int:
    """Which memory a tensor is a view of; ``meta`` tensors have no pointer, but a storage."""
    return int(tensor.untyped_storage()._cdata)


def _box(view: torch.Tensor, whole: torch.Tensor) -> Box:
    """Which elements of ``whole`` the view has. Raises Unpatchable when they are no box of it."""
    rest = view.storage_offset() - whole.storage_offset()
    start = []
    if not whole.is_contiguous() or view.stride() != whole.stride():
        raise Unpatchable(f"its loader reshapes {list(whole.shape)}")
    for stride in whole.stride():
        start.append(rest // stride)
        rest %= stride
    ends = (first + count for first, count in zip(start, view.shape, strict=True))
    if (
        rest
        or min(start, default=0) < 0
        or any(end > count for end, count in zip(ends, whole.shape, strict=True))
    ):
        raise Unpatchable(f"its loader reshapes {list(whole.shape)}")
    return tuple(start), tuple(view.shape)


def _exact(boxes: Sequence[Box], count: int) -> bool:
    """Do these boxes fill ``count`` elements, each once?"""
    apart = (
        any(
            one + size <= other or other + other_size <= one
            for one, size, other, other_size in zip(*left, *right, strict=True)
        )
        for left, right in combinations(boxes, 2)
    )
    return count > 0 and sum(prod(sizes) for _, sizes in boxes) == count and all(apart)
