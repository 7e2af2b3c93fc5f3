"""Tensors as bytes with a type and a shape, and the digest of many."""

from hashlib import sha256
import struct

import numpy as np
import pytest

from tailrace.weights.tensors import Tensor, bits_dtype, digest, digest_files
from tests.weights.models import model, tensor


@pytest.mark.parametrize("threads", [1, 2])
def test_digest_is_the_documented_text(threads: int) -> None:
    tensors = {
        "b": Tensor.of("bfloat16", (2,), np.array([0x3F80, 0x8000], "<u2")),
        "a\u00e9": Tensor.of("float32", (), np.array([1.0], "<f4")),
    }
    a = sha256(struct.pack("<f", 1.0)).hexdigest()
    b = sha256(b"\x80\x3f\x00\x80").hexdigest()
    text = f'["a\\u00e9","float32",[],"{a}"]\n["b","bfloat16",[2],"{b}"]\n'
    assert digest(tensors, threads=threads) == sha256(text.encode()).hexdigest()


def test_digest_of_files_is_the_documented_text() -> None:
    text = f'["a.json",2,"{sha256(b"{}").hexdigest()}"]\n'
    assert digest_files({"a.json": b"{}"}) == sha256(text.encode()).hexdigest()


def test_digest_ignores_the_order_of_tensors_only() -> None:
    tensors = model()
    mark = digest(tensors)
    assert digest(dict(reversed(tensors.items()))) == mark
    old = tensors["norm.weight"]
    flipped = old.bits.copy()
    flipped[-1] ^= 1
    for other in (
        tensors | {"norm.weight": Tensor.of("bfloat16", (32,), flipped)},
        tensors | {"norm.weight": Tensor.of("float16", (32,), old.bits)},
        tensors | {"norm.weight": Tensor.of("bfloat16", (4, 8), old.bits)},
        {("norm.bias" if name == "norm.weight" else name): t for name, t in tensors.items()},
    ):
        assert digest(other) != mark


def test_views_share_memory_and_are_read_only() -> None:
    weights = tensor("float32", (3, 4))
    view = weights.numpy()
    assert view.shape == (3, 4)
    assert view.dtype == np.float32
    assert np.shares_memory(view, weights.bits)
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1.0


def test_every_bfloat16_is_exact_as_float32() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = Tensor.of("bfloat16", (256, 256), bits).float32()
    assert wide.shape == (256, 256)
    assert (wide.view(np.uint32).ravel() == bits.astype(np.uint32) << 16).all()


def test_float16_as_float32() -> None:
    half = np.array([1.5, -2.0, 65504.0], np.float16)
    assert Tensor.of("float16", (3,), half).float32().tolist() == [1.5, -2.0, 65504.0]


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown dtype"):
        bits_dtype("complex64")
    with pytest.raises(ValueError, match="is 8 bytes, not 6"):
        Tensor.of("bfloat16", (4,), np.zeros(3, np.uint16))
    with pytest.raises(ValueError, match="no float32 view"):
        tensor("float8_e4m3fn", (4,)).float32()
