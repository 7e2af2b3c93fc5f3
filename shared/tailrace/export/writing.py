"""From trajectories to files, a batch at a time. Called by :mod:`.source` and :mod:`.command`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tailrace.events import Trajectory, TrajectoryContent
from tailrace.export import columns, layouts
from tailrace.export.choice import Choice
from tailrace.export.layouts import Row
from tailrace.export.pairs import Pairs, Texts
from tailrace.export.shards import Shards
from tailrace.export.texts import Unfit

BATCH = 2_000
"""Trajectories that are objects at a time: more cost the garbage collector's time."""
SHARD_BYTES = 256 * 1024 * 1024
"""Of texts and tokens in one file."""
Source = Callable[["Counter[str]"], Iterator[Trajectory]]


class Written(NamedTuple):
    """Trajectories that were read, rows that were written, and what was left out by reason."""

    read: int = 0
    rows: int = 0
    left_out: Counter[str] = Counter()


def rows(
    source: Source,
    choice: Choice,
    shards: Shards,
    form: str,
    good_above: float,
    shard_rows: int,
) -> Written:
    """A row for each trajectory that counts."""
    left_out: Counter[str] = Counter()
    read, size = 0, 0
    batch: list[Trajectory] = []
    made: list[Row] = []
    pieces: list[Any] = []
    names: list[str] = []
    """Of the file that is being made."""

    def convert() -> None:
        if form == "parquet":
            pieces.append(columns.table(batch))
        elif form == "jsonl":
            encoded = (msgspec.json.encode(columns.document(one)) + b"\n" for one in batch)
            pieces.append(b"".join(encoded))
        else:
            pieces.append(layouts.table(form, made))
        batch.clear()
        made.clear()

    def close() -> None:
        convert()
        if form == "jsonl":
            shards.lines(pieces, names)
        else:
            shards.tables(pieces, names)
        pieces.clear()
        names.clear()

    for one in source(left_out):
        read += 1
        if one.supersedes is not None:
            shards.supersede(one.supersedes)
        reason = choice.refuses(one)
        if reason is None and choice.refuses_reward(one.reward):
            reason = "reward"
        if reason is None and form in ("sft", "kto"):
            try:
                made.append(layouts.sft(one) if form == "sft" else layouts.kto(one, good_above))
            except Unfit as error:
                reason = str(error)
        if reason is not None:
            left_out[reason] += 1
            continue
        batch.append(one)
        names.append(one.trajectory_id)
        size += _size(one.content)
        if len(names) >= shard_rows or size >= SHARD_BYTES:
            close()
            size = 0
        elif len(batch) >= BATCH:
            convert()
    if names or not shards.written:
        close()  # an empty set has its columns too
    rows = shards.settle()
    return Written(read + left_out["unreadable"], rows, left_out + shards.dropped)


def pairs(
    source: Source, choice: Choice, folder: Path, form: str, margin: float, shard_rows: int
) -> Written:
    """A row for each pair. What was left out is of trajectories and of pairs."""
    left_out: Counter[str] = Counter()
    found = Pairs(choice, margin)
    read = 0
    for one in source(left_out):
        read += 1
        if (reason := choice.refuses(one)) is not None:
            left_out[reason] += 1
            found.forget(one)
        else:
            found.see(one)
    texts = Texts(found)
    for one in source(Counter()):
        texts.take(one)
    made = texts.rows()
    shards = Shards(folder)
    while (some := list(islice(made, shard_rows))) or not shards.written:
        names = [f"{row['chosen_id']}/{row['rejected_id']}/{row['by']}" for row in some]
        shards.tables([layouts.table(form, some)], names)
    rows = shards.settle()
    left_out += found.left_out + texts.left_out + shards.dropped
    return Written(read + left_out["unreadable"], rows, left_out)


def _size(content: TrajectoryContent | None) -> int:
    """Roughly, in bytes."""
    if content is None:
        return 0
    texts = (content.messages, content.message, content.demonstration)
    packed = (content.prompt_token_ids, content.token_ids, content.logprobs)
    return sum(len(each) for each in (*texts, *packed) if each is not None)
