"""Rows of tokens as one row without repeats: what they begin alike is there once.

A chat template, a system prompt, the question of a group, the turns of a session before: rows share
their beginnings, and a token that follows the same tokens has the same states. In the order of
their tokens each row adds a *run*, the tokens that the row before it does not share; the runs, one
behind the other, are what a forward pass computes, with no padding. A token attends to its *path*:
the tokens of its row up to itself, which lie in runs before.

Letters of shapes: N different tokens, S runs of a block, Q the longest run, K the longest path.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

BLOCK_SCORES = 1 << 22
"""Attention scores of one block and head at most, unless one run alone has more."""


class Block(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Runs of like length, for attention to compute together; padded on the right with token 0."""

    run_SQ: Tensor
    """The tokens of its runs: places in N."""
    place_SQ: Tensor
    """How many tokens are before each in its row; 0 where there is none."""
    real_SQ: Tensor
    """1 where there is one, else 0."""
    path_SK: Tensor
    """The tokens of the runs' paths: places in N."""

    def to(self, device: torch.device) -> Block:
        """The same on a device."""
        return Block(**{name: getattr(self, name).to(device) for name in self.__struct_fields__})


class Tree(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Some rows."""

    ids_N: Tensor
    place_N: Tensor
    """How many tokens are before each in its row: its position id."""
    blocks: list[Block]
    """Every token is in exactly one run of one block."""
    slot_N: Tensor
    """Where that is: the place among the slots (S, Q) of all blocks, one behind the other."""

    def to(self, device: torch.device) -> Tree:
        """The same on a device."""
        return Tree(
            ids_N=self.ids_N.to(device),
            place_N=self.place_N.to(device),
            blocks=[block.to(device) for block in self.blocks],
            slot_N=self.slot_N.to(device),
        )


class Run(msgspec.Struct, frozen=True):
    """What a row adds: the places in N of its whole path, and how many of them are new."""

    path: list[int]
    new: int


def tree(rows: Sequence[list[int]]) -> tuple[Tree, list[list[int]]]:
    """The tree of some rows of token ids, none empty, and each row's path: places in N."""
    ids: list[int] = []
    place: list[int] = []
    paths: list[list[int]] = [[]] * len(rows)
    runs: list[Run] = []
    path: list[int] = []
    before: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: rows[i]):
        row = rows[index]
        shared = common(before, row)
        added = len(row) - shared
        path = path[:shared] + list(range(len(ids), len(ids) + added))
        ids += row[shared:]
        place += range(shared, len(row))
        paths[index] = path
        if added:
            runs.append(Run(path, added))
        before = row
    blocks = [_block(part) for part in _alike(runs)]
    order_M = torch.cat([block.run_SQ[block.real_SQ > 0] for block in blocks])
    slots_M = torch.cat([block.real_SQ.flatten() for block in blocks]).nonzero()[:, 0]
    made = Tree(
        ids_N=torch.tensor(ids),
        place_N=torch.tensor(place),
        blocks=blocks,
        slot_N=torch.empty_like(order_M).index_copy_(0, order_M, slots_M),
    )
    return made, paths


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many equal tokens two rows begin."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs together whose lengths, and whose paths' lengths, are within a factor of two."""
    parts: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (run.new, len(run.path)), reverse=True):
        for part in parts:
            longest = max(len(run.path), *(len(other.path) for other in part))
            shortest = min(len(run.path), *(len(other.path) for other in part))
            fits = (len(part) + 1) * part[0].new * longest <= BLOCK_SCORES
            if 2 * run.new > part[0].new and 2 * shortest > longest and fits:
                part.append(run)
                break
        else:
            parts.append([run])
    return parts


def _block(runs: Sequence[Run]) -> Block:
    longest, longest_path = max(r.new for r in runs), max(len(r.path) for r in runs)
    run_SQ = torch.zeros(len(runs), longest, dtype=torch.long)
    place_SQ = torch.zeros_like(run_SQ)
    real_SQ = torch.zeros(len(runs), longest)
    path_SK = torch.zeros(len(runs), longest_path, dtype=torch.long)
    for index, run in enumerate(runs):
        size = len(run.path)
        path_SK[index, :size] = torch.tensor(run.path)
        run_SQ[index, : run.new] = path_SK[index, size - run.new : size]
        place_SQ[index, : run.new] = torch.arange(size - run.new, size)
        real_SQ[index, : run.new] = 1
    return Block(run_SQ=run_SQ, place_SQ=place_SQ, real_SQ=real_SQ, path_SK=path_SK)
