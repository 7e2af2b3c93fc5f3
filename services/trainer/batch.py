"""Answers packed into tensors: micro-batches without padding, in which no token is there twice.

The rows of a micro-batch (a prompt and its answer) are a tree (:mod:`services.trainer.tree`): what
they begin alike is computed once. So rows that begin alike come into the same micro-batch. Hidden
states are looked up only where an answer token is predicted.

Letters of shapes: N different tokens of all rows, T answer tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from services.trainer.answer import Answer
from services.trainer.tree import Tree, common, tree


class MicroBatch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one forward pass takes."""

    tree: Tree
    """Prompts and answers, the last token of each answer left out."""
    state_T: Tensor
    """Where in N the state lies that predicts each answer token."""
    answer_T: Tensor
    """Which of the step's answers each answer token is of: its place among those given."""
    target_T: Tensor
    """The answer tokens."""
    behaviour_T: Tensor
    """Their log-probability when they were sampled, nats."""
    advantage_T: Tensor
    temperature_T: Tensor
    mask_T: Tensor
    """1: the token counts."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        fields = {name: getattr(self, name).to(device) for name in self.__struct_fields__}
        return MicroBatch(**fields)


def micro_batches(
    answers: Sequence[Answer],
    advantages: Sequence[float],
    *,
    micro_answers: int,
    micro_tokens: int,
) -> list[MicroBatch]:
    """Split in the order of the tokens, so that beginnings are shared. Deterministic in its
    inputs."""
    rows = [a.prompt + a.tokens for a in answers]
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(answers)), key=lambda i: rows[i]):
        group = groups[-1] if groups else []
        added = len(rows[i]) - (common(rows[group[-1]], rows[i]) if group else 0)
        if group and len(group) < micro_answers and tokens + added <= micro_tokens:
            group.append(i)
            tokens += added
        else:
            groups.append([i])
            tokens = len(rows[i])
    return [pack([answers[i] for i in g], [advantages[i] for i in g], g) for g in groups]


def pack(
    answers: Sequence[Answer], advantages: Sequence[float], places: Sequence[int] | None = None
) -> MicroBatch:
    """One micro-batch of these answers; ``places``: theirs in the step, if that has others too."""
    places = range(len(answers)) if places is None else places
    packed, paths = tree([(a.prompt + a.tokens)[:-1] for a in answers])
    lengths = torch.tensor([len(a.tokens) for a in answers])

    def spread(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths)

    states = [
        place
        for answer, path in zip(answers, paths, strict=True)
        for place in path[len(answer.prompt) - 1 :]
    ]
    return MicroBatch(
        tree=packed,
        state_T=torch.tensor(states),
        answer_T=torch.tensor(places).repeat_interleave(lengths),
        target_T=torch.tensor([t for a in answers for t in a.tokens]),
        behaviour_T=torch.tensor([x for a in answers for x in a.logprobs], dtype=torch.float32),
        advantage_T=spread(advantages),
        temperature_T=spread([a.temperature for a in answers]),
        mask_T=torch.ones(int(lengths.sum())),
    )
