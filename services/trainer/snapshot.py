"""Arrays as they are at one moment, written by a thread while training goes on.

    training thread   Snapshot(state) ── forward, backward ──> freeze() ── weights move
    writer's thread   write(file): block after block of what the arrays hold

Forward and backward passes leave masters and moments alone, and take longer than a disk for their
bytes: so they are read where they are, and only what is not written when the optimizer is about to
move them is copied first. No second copy of the whole state, no wait for the disk. Owned by
:mod:`services.trainer.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import chain
import json
from pathlib import Path
import threading

import torch

_BLOCK_BYTES = 1 << 24
"""What is held still at a time."""
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64"}
"""As safetensors has them."""


class Snapshot:
    """What some tensors hold now. For two threads."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        """Keeps no copy: until :meth:`write` has returned they change only after a
        :meth:`freeze`."""
        self.total_bytes = _bytes(state)
        self._left = {name: state[name].detach() for name in sorted(state)}
        """What is not wholly written: of the first one, what was is not looked at any more."""
        self._lock = threading.Lock()

    def freeze(self) -> int:
        """Copy what is not written: from now on the arrays may change. Returns its bytes."""
        with self._lock:
            self._left = {name: tensor.clone() for name, tensor in self._left.items()}
            return _bytes(self._left)

    def write(self, path: Path) -> str:
        """A file of safetensors, and its sha256. Once. Raises OSError."""
        header: dict[str, object] = {}
        end = 0
        for name, tensor in self._left.items():
            start, end = end, end + tensor.numel() * tensor.element_size()
            entry = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}
            header[name] = entry | {"data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head: tuple[bytes | memoryview, ...] = (len(text).to_bytes(8, "little"), text)
        whole = sha256()
        with open(path, "wb") as file:
            for block in chain(head, self._blocks()):
                file.write(block)
                whole.update(block)
        return whole.hexdigest()

    def _blocks(self) -> Iterator[memoryview]:
        for name in list(self._left):
            size = self._left[name].element_size()
            step = _BLOCK_BYTES // size
            for start in range(0, self._left[name].numel(), step):
                with self._lock:
                    flat = self._left[name].reshape(-1)
                    block = flat[start : start + step].to("cpu", copy=True)
                yield block.view(torch.uint8).numpy().data
            with self._lock:
                del self._left[name]


def _bytes(state: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
