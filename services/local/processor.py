"""What the machine's processor computes fast: which dtype models run in.

Weights are bfloat16 and stay so; a processor that cannot multiply them makes each product in
software, tens of times slower than in float32. Called by :mod:`services.local.composition`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_MULTIPLIES_BFLOAT16 = frozenset(("avx512f", "amx_bf16", "bf16"))
"""Flags of x86 and Arm. torch and vLLM use AVX-512 for it even without its bf16 instructions."""


def dtype(cpuinfo: str) -> Literal["bfloat16", "float32"]:
    """What to compute in on the processor that this text of ``/proc/cpuinfo`` is about.

    >>> dtype("flags : fpu avx2"), dtype("flags : avx2 avx512f"), dtype("Features : fp bf16")
    ('float32', 'bfloat16', 'bfloat16')
    """
    for line in cpuinfo.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return "bfloat16" if _MULTIPLIES_BFLOAT16 & set(flags.split()) else "float32"
    return "bfloat16"


def own_dtype() -> Literal["bfloat16", "float32"]:
    """What to compute in here."""
    return dtype(Path("/proc/cpuinfo").read_text())
