"""The host copy before the first update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.engine.hostcopy import warm
from tailrace.weights import codec, folder, kernels
from tests.engine.models import tensors


def test_the_first_update_finds_its_loops_compiled(tmp_path: Path) -> None:
    folder.write(tmp_path / "base", tensors(0), {})
    base = folder.read(tmp_path / "base")
    stream = codec.encode_delta(base, tensors(1))
    kernels.compiled.cache_clear()
    loops: Any = kernels.compiled()
    warm(base)
    before = [list(loop.signatures) for loop in loops]
    assert all(before)
    codec.apply_delta(stream, base, with_undo=True)
    assert [list(loop.signatures) for loop in loops] == before
