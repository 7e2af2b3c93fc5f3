"""Files of an export: ``data/train-00-00000.parquet`` and on, as Hugging Face's ``datasets`` finds
them.

Rows go out in batches; what turns out later to be superseded, or to have been there twice, is taken
out of the files at the end. Nothing is under the folder's own name before all of it is whole.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
import hashlib
import os
from pathlib import Path
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


_FEW = ("tenant", "principal", "model", "engine", "finish_reason", "reward_spec", "task", "channel")
"""Columns of few values: of all others a dictionary is no smaller, and half of the work."""


class Folder:
    """Made beside ``folder`` and renamed at the end. A context manager: what is not finished is
    deleted."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder holds anything, OSError."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is there already, and not an empty folder")
        self._folder = folder
        self.made = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        (self.made / "data").mkdir(parents=True)

    def finish(self, card: str) -> None:
        """Write the card (README.md) and give the folder its name."""
        (self.made / "README.md").write_text(card)
        if self._folder.exists():
            self._folder.rmdir()
        os.replace(self.made, self._folder)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.made, ignore_errors=True)


class Shards:
    """The files of one writer in a folder; all revisions of an answer go through one writer."""

    def __init__(self, made: Path, writer: int = 0) -> None:
        self._made, self._writer = made, writer
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
        """Append a file of lines, one of each trajectory."""
        self._next("jsonl", trajectories).write_bytes(b"".join(texts))

    def tables(self, rows: Sequence[pa.Table], trajectories: Sequence[str]) -> None:
        """Append a Parquet file, the row of each trajectory."""
        import pyarrow as pa

        _write(pa.concat_tables(rows), self._next("parquet", trajectories))

    def settle(self) -> int:
        """Take out what does not count. The number of rows that are left."""
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
        return int((first & ~old).sum())

    def _next(self, suffix: str, trajectories: Sequence[str]) -> Path:
        self._marks.append(array("q", map(_mark, trajectories)))
        name = f"train-{self._writer:02}-{len(self._files):05}.{suffix}"
        self._files.append(self._made / "data" / name)
        return self._files[-1]


def _mark(trajectory_id: str) -> int:
    digest = hashlib.blake2b(trajectory_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _write(rows: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    few = [name for name in rows.column_names if name in _FEW]
    pq.write_table(rows, file, compression="zstd", use_dictionary=few)


def _rewrite(file: Path, kept: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".jsonl":
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(line for line, keep in zip(lines, kept, strict=True) if keep))
    else:
        _write(pq.read_table(file).filter(pa.array(kept)), file)
