"""Files of an export: ``data/train-00000.parquet`` and on, as Hugging Face's ``datasets`` finds
them.

Rows go out in batches; what turns out later to be superseded, or to have been there twice, is taken
out of the files at the end. Nothing is under the folder's own name before all of it is whole.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
import hashlib
import os
from pathlib import Path
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Shards:
    """Writes into a folder beside ``folder`` and renames that at the end. A context manager: what
    is not finished is deleted."""

    def __init__(self, folder: Path, *, shard_rows: int = 50_000) -> None:
        """Raises ValueError where the folder holds anything, OSError."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is there already, and not an empty folder")
        self._folder = folder
        self._shard_rows = shard_rows
        self._made = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        (self._made / "data").mkdir(parents=True)
        self._files: list[Path] = []
        self._marks: list[array[int]] = []
        """Of each file, a mark of each row's trajectory."""
        self._gone: set[int] = set()
        self.dropped: Counter[str] = Counter()

    def supersede(self, trajectory_id: str) -> None:
        """A newer revision of this one was seen."""
        self._gone.add(_mark(trajectory_id))

    @property
    def written(self) -> bool:
        """Whether there is a file."""
        return bool(self._files)

    def lines(self, texts: Sequence[bytes], trajectories: Sequence[str]) -> None:
        """Append a file of lines, the row of each trajectory."""
        self._next("jsonl", trajectories).write_bytes(b"".join(texts))

    def table(self, rows: pa.Table, trajectories: Sequence[str]) -> None:
        """Append a Parquet file, the row of each trajectory."""
        _write(rows, self._next("parquet", trajectories))

    def finish(self, card: Callable[[int], str]) -> int:
        """Take out what does not count, write the card (README.md) and give the folder its name.
        The number of rows."""
        gone = np.fromiter(self._gone, np.int64, len(self._gone))
        every = np.concatenate([np.frombuffer(m, np.int64) for m in self._marks] or [gone[:0]])
        first = np.zeros(len(every), bool)
        first[np.unique(every, return_index=True)[1]] = True
        old = np.isin(every, gone)
        self.dropped.update(superseded=int((old & first).sum()), repeated=int((~first).sum()))
        start = 0
        for file, marks in zip(self._files, self._marks, strict=True):
            here = slice(start, start + len(marks))
            start += len(marks)
            kept = first[here] & ~old[here]
            if not kept.all():
                _rewrite(file, kept)
        rows = int((first & ~old).sum())
        (self._made / "README.md").write_text(card(rows))
        if self._folder.exists():
            self._folder.rmdir()
        os.replace(self._made, self._folder)
        return rows

    def _next(self, suffix: str, trajectories: Sequence[str]) -> Path:
        self._marks.append(array("q", map(_mark, trajectories)))
        self._files.append(self._made / "data" / f"train-{len(self._files):05}.{suffix}")
        return self._files[-1]

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._made, ignore_errors=True)


def _mark(trajectory_id: str) -> int:
    digest = hashlib.blake2b(trajectory_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _write(rows: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(rows, file, compression="zstd")


def _rewrite(file: Path, kept: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".jsonl":
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(line for line, keep in zip(lines, kept, strict=True) if keep))
    else:
        _write(pq.read_table(file).filter(pa.array(kept)), file)
