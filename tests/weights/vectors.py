"""The streams that docs/classes-1.json shows to whoever writes a codec of their own.

    python -m tests.weights.vectors

writes those that are not there yet. A stream that is there stays, and must be read for ever.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tailrace.weights import codec
from tailrace.weights.tensors import Tensor, Tensors

FILE = Path(__file__).parents[2] / "docs" / "classes-1.json"
FRAME_WEIGHTS = 512
"""Small enough for a tensor in two parts."""


def _bf16(*values: float) -> Tensor:
    bits = (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return Tensor.of("bfloat16", (len(values),), bits)


def _moved(old: Tensor, steps: dict[int, int]) -> Tensor:
    bits = old.bits.copy()
    for at, step in steps.items():
        bits[at] += np.array(step).astype(bits.dtype)
    return Tensor.of(old.dtype, old.shape, bits)


def cases() -> dict[str, tuple[Tensors, Tensors]]:
    """Models before and after."""
    two = {"a": _bf16(1.0, 0.5, 1.5, 0.75, 1.25, 0.5), "b": _bf16(0.5, 1.0, 1.75, 0.625)}
    long = {"w": Tensor.of("bfloat16", (4, 150), np.full(600, 0x3F80, np.uint16))}
    half = Tensor.of("float16", (3,), np.array([1.0, -2.0, np.nan], np.float16))
    single = Tensor.of("float32", (3,), np.array([1.0, -0.0, 1e-40], np.float32))
    whole = Tensor.of("int32", (2,), np.array([7, -1], np.int32))
    others = {"h": half, "i": whole, "s": single}
    return {
        "two classes over two tensors, a bitmap, signs": (
            two,
            {"a": _moved(two["a"], {0: 1, 2: -1}), "b": _moved(two["b"], {0: 1, 1: 1})},
        ),
        "steps with an escape, a weight that leaves its class": (
            two,
            two | {"a": _moved(two["a"], {0: -1, 1: 3, 2: 2, 4: -300})},
        ),
        "far gaps, two frames": (long, {"w": _moved(long["w"], {0: 1, 254: 1, 511: 1, 599: -1})}),
        "float16, float32 and bytes": (
            others,
            {
                "h": _moved(half, {2: 1}),
                "i": _moved(whole, {0: 1}),
                "s": _moved(single, {0: 70_000}),
            },
        ),
        "new, removed and of another shape": (
            two,
            {"a": Tensor.of("bfloat16", (2, 3), two["a"].bits), "c": single},
        ),
    }


def described(tensors: Tensors) -> list[list[Any]]:
    return [[n, t.dtype, list(t.shape), t.bits.tobytes().hex()] for n, t in tensors.items()]


def tensors(rows: list[list[Any]]) -> Tensors:
    """What :func:`described` told."""
    return {
        name: Tensor.of(dtype, tuple(shape), np.frombuffer(bytes.fromhex(data), np.uint8))
        for name, dtype, shape, data in rows
    }


def main() -> None:
    shown = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, (base, new) in cases().items():
        stream = codec.encode_delta(base, new, frame_weights=FRAME_WEIGHTS)
        case = {"base": described(base), "new": described(new), "stream": stream.hex()}
        shown.setdefault(name, case)
    lines = [f"{json.dumps(name)}:\n{json.dumps(case)}" for name, case in shown.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
