"""Size and time of a weight update, beside two ways in use elsewhere, in the same run.

    python -m benchmarks.weights [--folder MODEL] [--lr 2e-5 2e-6] [--repeats 5] [--json]

The model is a folder with safetensors, or random weights in the shapes of SmolLM2-135M. The update
is one Adam-like step of size lr on float32 masters that lie anywhere in their bfloat16's rounding
cell. Each way encodes both models to bytes and applies them to the base, exactly, on one core; the
repeats of the ways alternate, and medians are given. Ratios are the peer's figure over gaps-1's.

- gaps-1: :mod:`tailrace.weights.codec`
- xor+zstd: XOR of all bits, zstd level 3
- int32+bf16+zstd: positions of changed weights as int32 and their new values, zstd level 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
from pathlib import Path
from statistics import median
import struct
import sys
import time
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import zstandard

from tailrace.weights import codec, folder
from tailrace.weights.tensors import Tensor, Tensors, digest

LAYERS = 30
LAYER_SHAPES = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
    "input_layernorm": (576,),
    "post_attention_layernorm": (576,),
}


class Way(NamedTuple):
    """One way to make bytes of an update and weights of the bytes."""

    name: str
    encode: Callable[[Tensors, Tensors], bytes]
    apply: Callable[[bytes, Tensors], Tensors]


def random_model(seed: int = 0) -> Tensors:
    """SmolLM2-135M's shapes (embedding tied) with normal weights."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (49152, 576)}
    for layer in range(LAYERS):
        for name, shape in LAYER_SHAPES.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (576,)
    return {
        name: _rounded(rng.standard_normal(shape, np.float32) * np.float32(0.05))
        for name, shape in shapes.items()
    }


def stepped(base: Tensors, lr: float, seed: int = 1) -> Tensors:
    """The model after one step: each master moves by lr times a normal draw."""
    rng = np.random.default_rng(seed)
    new = {}
    for name, old in base.items():
        if old.dtype != "bfloat16":
            new[name] = old
            continue
        cell = rng.random(old.bits.size, np.float32).reshape(old.shape) - np.float32(0.5)
        master = (old.bits.astype(np.uint32) << 16).view(np.float32).reshape(old.shape)
        ulp = np.abs(master) * np.float32(2**-8)
        master = master + cell * ulp
        step = np.float32(lr) * rng.standard_normal(old.shape, np.float32)
        # The base is the rounding of the same masters, so that only the step makes a difference.
        base[name] = _rounded(master)
        new[name] = _rounded(master + step)
    return new


def _rounded(values: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """float32 to bfloat16, to the nearest, ties to even."""
    bits = values.view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return Tensor.of("bfloat16", values.shape, bits.astype(np.uint16))


def xor_encode(base: Tensors, new: Tensors) -> bytes:
    press = zstandard.ZstdCompressor(level=3)
    frames = [press.compress((base[n].bits ^ t.bits).tobytes()) for n, t in new.items()]
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)


def xor_apply(stream: bytes, base: Tensors) -> Tensors:
    new, at = {}, 0
    for name, old in base.items():
        (length,) = struct.unpack_from("<I", stream, at)
        raw = zstandard.ZstdDecompressor().decompress(stream[at + 4 : at + 4 + length])
        at += 4 + length
        new[name] = Tensor.of(old.dtype, old.shape, old.bits ^ np.frombuffer(raw, old.bits.dtype))
    return new


def sparse_encode(base: Tensors, new: Tensors) -> bytes:
    press = zstandard.ZstdCompressor(level=3)
    out = []
    for name, tensor in new.items():
        at = np.flatnonzero(base[name].bits != tensor.bits)
        raw = at.astype("<i4").tobytes() + tensor.bits[at].tobytes()
        frame = press.compress(raw)
        out += [struct.pack("<II", len(frame), at.size), frame]
    return b"".join(out)


def sparse_apply(stream: bytes, base: Tensors) -> Tensors:
    new, at = {}, 0
    for name, old in base.items():
        length, count = struct.unpack_from("<II", stream, at)
        raw = zstandard.ZstdDecompressor().decompress(stream[at + 8 : at + 8 + length])
        at += 8 + length
        bits = old.bits.copy()
        bits[np.frombuffer(raw, "<i4", count)] = np.frombuffer(raw, bits.dtype, count, 4 * count)
        new[name] = Tensor.of(old.dtype, old.shape, bits)
    return new


WAYS = (
    Way("gaps-1", codec.encode_delta, lambda stream, base: codec.apply_delta(stream, base).tensors),
    Way("xor+zstd", xor_encode, xor_apply),
    Way("int32+bf16+zstd", sparse_encode, sparse_apply),
)


def measure(base: Tensors, lr: float, repeats: int) -> dict[str, Any]:
    """Medians of all ways for one step of size ``lr``. ``base`` is changed within its rounding."""
    new = stepped(base, lr)
    weights = sum(t.bits.size for t in base.values())
    changed = sum(int((base[n].bits != t.bits).sum()) for n, t in new.items())
    wanted = digest(new)
    times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in WAYS}
    sizes: dict[str, int] = {}
    for _ in range(repeats):
        for way in WAYS:
            start = time.perf_counter()
            stream = way.encode(base, new)
            encoded = time.perf_counter()
            after = way.apply(stream, base)
            times[way.name].append((encoded - start, time.perf_counter() - encoded))
            sizes[way.name] = len(stream)
            assert digest(after) == wanted, f"{way.name} is not exact"
            del after
    ours = sizes["gaps-1"]
    result: dict[str, Any] = {
        "lr": lr,
        "weights": weights,
        "changed_share": changed / weights,
        "model_bytes": sum(t.bits.nbytes for t in base.values()),
        "gaps-1_bytes_per_changed_weight": ours / max(1, changed),
        "ways": {},
    }
    encode_s, apply_s = (median(t[i] for t in times["gaps-1"]) for i in (0, 1))
    for name, size in sizes.items():
        mine = [median(t[i] for t in times[name]) for i in (0, 1)]
        result["ways"][name] = {
            "bytes": size,
            "encode_s": mine[0],
            "apply_s": mine[1],
            "bytes_ratio": size / ours,
            "encode_ratio": mine[0] / encode_s,
            "apply_ratio": mine[1] / apply_s,
        }
    stream = codec.encode_delta(base, new)
    result["gaps-1_peak_bytes"] = {
        "encode": _peak_bytes(lambda: codec.encode_delta(base, new)),
        "apply": _peak_bytes(lambda: codec.apply_delta(stream, base)),
    }
    return result


def keyframe(model: Tensors, repeats: int) -> dict[str, float]:
    """Medians for a keyframe, and for the digest that every receiver computes."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        stream = codec.encode_keyframe(model, {})
        encoded = time.perf_counter()
        decoded, _ = codec.decode_keyframe(stream)
        applied = time.perf_counter()
        digest(decoded)
        times.append((encoded - start, applied - encoded, time.perf_counter() - applied))
    names = ("encode_s", "decode_s", "digest_s")
    return {"bytes": len(stream)} | {n: median(t[i] for t in times) for i, n in enumerate(names)}


def _peak_bytes(call: Callable[[], object]) -> int:
    """Most memory allocated by Python and numpy beyond what was there."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__)
    parser.add_argument("--folder", type=Path, help="model folder with safetensors")
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-5, 2e-6])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = dict(folder.read(options.folder)) if options.folder else random_model()
    report: dict[str, Any] = {
        "model": options.folder.name if options.folder else "random, SmolLM2-135M's shapes",
        "updates": [measure(model, lr, options.repeats) for lr in options.lr],
        "keyframe": keyframe(model, options.repeats),
    }
    if options.json:
        json.dump(report, sys.stdout)
        print()
        return
    print(report["model"])
    for update in report["updates"]:
        share, size = update["changed_share"], update["model_bytes"]
        print(f"\nlr {update['lr']:g}: {share:.2%} of {update['weights']:,} weights change")
        titles = ("MB", "of model", "encode s", "apply s", "size ratio")
        print(" " * 18 + "".join(f"{title:>11}" for title in titles))
        for name, way in update["ways"].items():
            cells = (
                f"{way['bytes'] / 1e6:.2f}",
                f"1/{size / way['bytes']:.0f}",
                f"{way['encode_s']:.2f}",
                f"{way['apply_s']:.2f}",
                f"{way['bytes_ratio']:.2f}",
            )
            print(f"{name:18}" + "".join(f"{cell:>11}" for cell in cells))
        peaks = update["gaps-1_peak_bytes"]
        print(
            f"gaps-1 peak MB: encode {peaks['encode'] / 1e6:.0f}, apply {peaks['apply'] / 1e6:.0f}"
        )
    frame = report["keyframe"]
    seconds = ", ".join(f"{n[:-2]} {frame[n]:.2f} s" for n in ("encode_s", "decode_s", "digest_s"))
    print(f"\nkeyframe: {frame['bytes'] / 1e6:.0f} MB, {seconds}")


if __name__ == "__main__":
    main()
