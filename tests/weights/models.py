"""Small models for the tests of weights: random bits, and a step of training on them."""

from __future__ import annotations

import numpy as np

from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors

FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}


def tensor(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random bits of any kind."""
    size_bytes = int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES[dtype]
    data = np.random.default_rng(seed).integers(0, 256, size_bytes, np.uint8)
    return Tensor.of(dtype, shape, data)


def model(seed: int = 0) -> Tensors:
    """A few tensors, bfloat16 mostly."""
    return {
        "embed.weight": tensor("bfloat16", (64, 32), seed),
        "layer.0.weight": tensor("bfloat16", (32, 32), seed + 1),
        "layer.0.scale": tensor("float32", (32,), seed + 2),
        "norm.weight": tensor("bfloat16", (32,), seed + 3),
    }


def trained(base: Tensors, seed: int, share: float = 0.1) -> Tensors:
    """The model with ``share`` of its 16-bit weights moved by a few units."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, old in base.items():
        bits = old.bits.copy()
        if bits.dtype.itemsize == 2:
            hit = rng.random(bits.size) < share
            bits[hit] += rng.integers(-3, 4, int(hit.sum())).astype(np.int16).view(np.uint16)
        moved[name] = Tensor.of(old.dtype, old.shape, bits)
    return moved


def same(left: Tensors, right: Tensors) -> bool:
    """Equal names, kinds and bits."""
    return left.keys() == right.keys() and all(
        (left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape)
        and left[name].bits.tobytes() == right[name].bits.tobytes()
        for name in left
    )
