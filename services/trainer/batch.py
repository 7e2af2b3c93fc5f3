"""Answers packed into tensors: micro-batches of like length that share their common prefix.

The chat template begins every prompt alike, so the longest common prefix of a micro-batch is
computed once and its keys and values are shared by all rows; what is left of each prompt and its
answer is padded on the right. Hidden states are looked up only where an answer token is predicted.

Letters of shapes: B rows, P prefix tokens, L tokens after the prefix, T answer tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

import msgspec
import torch
from torch import Tensor

from services.trainer.answer import Answer


class MicroBatch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one forward pass takes."""

    prefix_P: Tensor
    """Token ids that all rows begin with; P may be 0."""
    ids_BL: Tensor
    """Token ids after the prefix, the last token of each answer left out; padded with 0."""
    real_BL: Tensor
    """1 where ``ids_BL`` is a token, 0 where it is padding."""
    answer_T: Tensor
    """Which of the step's answers each answer token is of: its place among those given."""
    row_T: Tensor
    column_T: Tensor
    """Where in (B, L) the state lies that predicts each answer token."""
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
    """Split by length, shortest first, so that little is padded. Deterministic in its inputs."""
    order = sorted(range(len(answers)), key=lambda i: _length(answers[i]))
    groups: list[list[int]] = []
    for i in order:
        # Sorted, so a row is as long as the newest of its group.
        group = groups[-1] if groups else []
        fits = (len(group) + 1) * _length(answers[i]) <= micro_tokens
        if group and len(group) < micro_answers and fits:
            group.append(i)
        else:
            groups.append([i])
    return [pack([answers[i] for i in g], [advantages[i] for i in g], g) for g in groups]


def pack(
    answers: Sequence[Answer], advantages: Sequence[float], places: Sequence[int] | None = None
) -> MicroBatch:
    """One micro-batch of these answers; ``places``: theirs in the step, if that has others too."""
    places = range(len(answers)) if places is None else places
    # Every row keeps at least one prompt token after the prefix: it predicts the first answer
    # token.
    prefix = commonprefix([a.prompt[:-1] for a in answers]) if len(answers) > 1 else []
    shared = len(prefix)
    rows = [(a.prompt + a.tokens)[shared:-1] for a in answers]
    width = max(len(row) for row in rows)
    ids_BL = torch.zeros(len(rows), width, dtype=torch.long)
    real_BL = torch.zeros_like(ids_BL)
    at_row: list[int] = []
    at_column: list[int] = []
    for index, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        ids_BL[index, : len(row)] = torch.tensor(row)
        real_BL[index, : len(row)] = 1
        first = len(answer.prompt) - shared - 1
        at_row += [index] * len(answer.tokens)
        at_column += range(first, first + len(answer.tokens))
    lengths = torch.tensor([len(a.tokens) for a in answers])

    def spread(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths)

    return MicroBatch(
        prefix_P=torch.tensor(prefix, dtype=torch.long),
        ids_BL=ids_BL,
        real_BL=real_BL,
        answer_T=torch.tensor(places).repeat_interleave(lengths),
        row_T=torch.tensor(at_row),
        column_T=torch.tensor(at_column),
        target_T=torch.tensor([t for a in answers for t in a.tokens]),
        behaviour_T=torch.tensor([x for a in answers for x in a.logprobs], dtype=torch.float32),
        advantage_T=spread(advantages),
        temperature_T=spread([a.temperature for a in answers]),
        mask_T=torch.ones(int(lengths.sum())),
    )


def _length(answer: Answer) -> int:
    return len(answer.prompt) + len(answer.tokens)
