"""What is written is what the arrays held, whenever they change after it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
import os
from pathlib import Path

import pytest
from safetensors.torch import load
import torch

from services.trainer import snapshot
from services.trainer.snapshot import Snapshot

SHAPES = {"b": (300, 400), "a": (100_000,), "empty": (0,), "c": (), "d": (7, 11, 13)}


@pytest.mark.parametrize("read_bytes", [0, 1, 100_000, 400_000, 700_000])
def test_arrays_that_change_while_the_disk_is_slow_are_copied_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(snapshot, "_BLOCK_BYTES", 4096)
    state = {name: torch.rand(shape) for name, shape in SHAPES.items()}
    state["whole"] = torch.arange(50)
    before = {name: tensor.clone() for name, tensor in state.items()}
    disk = tmp_path / "disk"
    os.mkfifo(disk)  # what writes it waits for who reads it
    made = Snapshot(state)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(made.write, disk)
        with open(disk, "rb") as file:
            found = file.read(read_bytes)
            copied = made.freeze()
            for tensor in state.values():
                tensor.zero_()
            found += file.read()
        assert written.result(10) == sha256(found).hexdigest()
    assert 0 < copied <= made.total_bytes - max(0, read_bytes - 400_000)
    there = load(found)
    assert there.keys() == before.keys()
    assert all(torch.equal(there[name], tensor) for name, tensor in before.items())


def test_what_is_written_needs_no_copy(tmp_path: Path) -> None:
    state = {"a": torch.rand(1000)}
    made = Snapshot(state)
    made.write(tmp_path / "disk")
    assert made.freeze() == 0
