"""Sizes and times of deltas, for :mod:`benchmarks.weights`.

:func:`deltas` takes real steps of training (:mod:`benchmarks.training`), in a process of its own so
that torch and its threads are gone before anything is timed. Other formats are made from the same
two versions and measured in bytes; positions and values are compressed apart, tensor by tensor:

- full: all bits
- overwrite: int32 positions and new bfloat16 values, zstd level 1
- coo: the same, with gaps instead of positions, in the fewest bytes that hold all of a tensor's
- xor: old and new bits XORed, zstd level 1
- entropy: of "changed or not, and by which step" given the weight's exponent, per weight of the
  whole model: what a perfect coder with a perfect table per exponent would need

:func:`scaling` takes normal weights, 1 to 4 % of them moved by one or two units, drawn per tensor.

``encode_s`` is :func:`tailrace.weights.codec.encode_delta`; ``apply_s`` the apply with its undo
and the digest of the result. Both on one thread, medians of the repeats after one that does not
count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
import multiprocessing
from pathlib import Path
from statistics import median
import tempfile
import time
from typing import Any

import numpy as np
import zstandard

from benchmarks.training import versions
from services.local import model
from services.trainer import heap
from tailrace.weights import codec, folder
from tailrace.weights.tensors import Tensor, Tensors, digest

STEP = 6
"""The step that is measured, the first being 1."""
ROUNDINGS = ("spread", "nearest")
"""Of the float32 masters: the trainer's, and what most others publish."""
TENSOR_SHAPE = (4096, 2048)
"""Of the random models' tensors."""


def deltas(cache_dir: Path, lrs: Sequence[float], repeats: int) -> list[dict[str, Any]]:
    """A row per learning rate and rounding, see the issue's keys."""
    source = model.prepare(cache_dir, lambda text: None)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for lr, rounding in product(lrs, ROUNDINGS):
            folders = [Path(place) / f"{lr}-{rounding}-{name}" for name in ("base", "new")]
            maker = multiprocessing.get_context("spawn").Process(
                target=_train, args=(source, lr, rounding, folders)
            )
            maker.start()
            maker.join()
            if maker.exitcode != 0:
                raise RuntimeError(f"training ended with {maker.exitcode}")
            base, new = (_loaded(path) for path in folders)
            rows.append({"lr": lr, "rounding": rounding} | compare(base, new, repeats))
    return rows


def _train(source: Path, lr: float, rounding: str, folders: list[Path]) -> None:
    """Write the versions before and after the step to be measured."""
    for step, pair in enumerate(pairwise(versions(source, lr, rounding)), start=1):
        if step == STEP:
            for path, tensors in zip(folders, pair, strict=True):
                folder.write(path, tensors, {})
            return


def _loaded(path: Path) -> Tensors:
    """A model in memory, not mapped: reading is not what is timed."""
    return {n: Tensor.of(t.dtype, t.shape, t.bits.copy()) for n, t in folder.read(path).items()}


def compare(base: Tensors, new: Tensors, repeats: int) -> dict[str, Any]:
    """The row of one update."""
    changed = _changed(base, new)
    encode_s, apply_s, stream_bytes = timed(base, new, repeats)
    full_bytes = sum(tensor.bits.nbytes for tensor in new.values())
    return {
        "changed": changed / sum(tensor.bits.size for tensor in new.values()),
        "bytes": stream_bytes,
        "bytes_per_changed": stream_bytes / changed,
        "full_ratio": full_bytes / stream_bytes,
        "overwrite_ratio": overwrite_bytes(base, new) / stream_bytes,
        "coo_ratio": coo_bytes(base, new) / stream_bytes,
        "xor_ratio": xor_bytes(base, new) / stream_bytes,
        "entropy_ratio": stream_bytes / entropy_bytes(base, new),
        "encode_s": encode_s,
        "apply_s": apply_s,
    }


def scaling(parameters: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """A row per size of the model, see the issue's keys.

    Memory that is freed stays with the process: to get new pages from the system for a model of
    3 GB can take longer than to apply an update to it, and is no figure of the codec's.
    """
    heap.keep()
    rows = []
    for wanted in parameters:
        base, new = _random_update(wanted)
        size = sum(tensor.bits.size for tensor in base.values())
        changed = _changed(base, new) / size
        encode_s, apply_s, _ = timed(base, new, repeats)
        rows.append(
            {"parameters": size, "changed": changed, "encode_s": encode_s, "apply_s": apply_s}
        )
        del base, new
    return rows


def timed(base: Tensors, new: Tensors, repeats: int) -> tuple[float, float, int]:
    """Median seconds of encoding and of applying, and the bytes of the stream.

    Raises AssertionError where the way there or back is not exact.
    """
    there, back = digest(new), digest(base)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        stream = codec.encode_delta(base, new)
        encoded = time.perf_counter()
        applied = codec.apply_delta(stream, base, with_undo=True)
        found = digest(applied.tensors)
        times.append((encoded - start, time.perf_counter() - encoded))
        assert found == there, "the new model is another one"
        undo = applied.undo
        del applied
    assert undo is not None
    assert digest(codec.apply_delta(undo, new).tensors) == back, "the way back leads elsewhere"
    encode_s, apply_s = (median(pair[i] for pair in times[1:]) for i in (0, 1))
    return encode_s, apply_s, len(stream)


def overwrite_bytes(base: Tensors, new: Tensors) -> int:
    total = 0
    for name, tensor in new.items():
        at = np.flatnonzero(base[name].bits != tensor.bits)
        total += _packed(at.astype("<i4")) + _packed(tensor.bits[at])
    return total


def coo_bytes(base: Tensors, new: Tensors) -> int:
    total = 0
    for name, tensor in new.items():
        at = np.flatnonzero(base[name].bits != tensor.bits)
        gaps = np.diff(at, prepend=0)
        narrow = np.min_scalar_type(int(gaps.max(initial=0)))
        total += _packed(gaps.astype(narrow)) + _packed(tensor.bits[at])
    return total


def xor_bytes(base: Tensors, new: Tensors) -> int:
    return sum(_packed(base[name].bits ^ tensor.bits) for name, tensor in new.items())


def _packed(values: np.ndarray[Any, Any]) -> int:
    return len(zstandard.ZstdCompressor(level=1).compress(values.tobytes()))


def entropy_bytes(base: Tensors, new: Tensors) -> float:
    """Of bfloat16 models: the sum over exponents of weights times the entropy of their steps."""
    weights = np.zeros(256, np.int64)
    found = []
    for name, tensor in new.items():
        old = base[name].bits
        exponents = (old >> 7) & 255
        weights += np.bincount(exponents, minlength=256)
        at = np.flatnonzero(tensor.bits != old)
        steps = (tensor.bits[at] - old[at]).astype(np.uint32)
        found.append((exponents[at].astype(np.uint32) << np.uint32(16)) | steps)
    moved, counts = np.unique(np.concatenate(found), return_counts=True)
    still = weights - np.bincount(moved >> np.uint32(16), counts, 256)
    bits = -float((counts * np.log2(counts / weights[moved >> np.uint32(16)])).sum())
    some = still > 0
    bits -= float((still[some] * np.log2(still[some] / weights[some])).sum())
    return bits / 8


def _changed(base: Tensors, new: Tensors) -> int:
    return sum(int((base[n].bits != tensor.bits).sum()) for n, tensor in new.items())


def _random_update(parameters: int) -> tuple[Tensors, Tensors]:
    """A model of about that many weights, in tensors of one shape, and the model after."""
    rng = np.random.default_rng(0)
    base: Tensors = {}
    new: Tensors = {}
    size = TENSOR_SHAPE[0] * TENSOR_SHAPE[1]
    for number in range(max(1, round(parameters / size))):
        weights = rng.standard_normal(size, np.float32) * np.float32(0.02)
        bits = (weights.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        moved = bits.copy()
        at = np.flatnonzero(rng.random(size, np.float32) < rng.uniform(0.01, 0.04))
        moved[at] += rng.choice(np.array([-2, -1, 1, 2], np.int16), at.size).view(np.uint16)
        name = f"layers.{number}.weight"
        base[name] = Tensor.of("bfloat16", TENSOR_SHAPE, bits)
        new[name] = Tensor.of("bfloat16", TENSOR_SHAPE, moved)
    return base, new
