"""Attention over a tree of rows, exact and without contamination: a token sees its path, no more.

Everything else of a decoder layer works on single tokens, so it takes the tree's tokens as one row
without padding; only here they are laid out as runs against paths, block by block. The backward
pass makes the probabilities again: between the passes a layer keeps nothing of the size of queries
times keys. Registered with transformers as :data:`NAME`; :mod:`services.trainer.policy` passes the
tree through the model's forward as ``tree``. Without one it is transformers' eager attention.

Letters of shapes: as :mod:`services.trainer.tree`, and H heads, G groups of heads that share keys
and values, R heads of a group, D features of a head, B = S x G.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.modeling_utils import AttentionInterface
from transformers.models.llama.modeling_llama import eager_attention_forward

from services.trainer.tree import Block, Tree

NAME = "tailrace_tree"


class TreeAttention(torch.autograd.Function):
    """``softmax(q k^T scale) v`` of every token over its path; scores and softmax in float32."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any,
        q_NHD: Tensor,
        k_NGD: Tensor,
        v_NGD: Tensor,
        tree: Tree,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """What each token sees, (N, H, D); ``window``: of its last so many tokens."""
        seen = []
        for block in tree.blocks:
            q_BQD, k_BKD, v_BKD = _laid_out(block, q_NHD, k_NGD, v_NGD)
            weight_BQK = _weights(block, q_BQD, k_BKD, scale, window)
            seen.append(_slots(block, weight_BQK.to(v_BKD.dtype) @ v_BKD, q_NHD))
        context.save_for_backward(q_NHD, k_NGD, v_NGD)
        context.tree, context.scale, context.window = tree, scale, window
        return torch.cat(seen).index_select(0, tree.slot_N)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of q, k and v."""
        q_NHD, k_NGD, v_NGD = context.saved_tensors
        to_k_NGD = torch.zeros_like(k_NGD, memory_format=torch.contiguous_format)
        to_v_NGD = torch.zeros_like(to_k_NGD)
        to_q = []
        for block in context.tree.blocks:
            q_BQD, k_BKD, v_BKD = _laid_out(block, q_NHD, k_NGD, v_NGD)
            weight_BQK = _weights(block, q_BQD, k_BKD, context.scale, context.window)
            to_seen_BQD = _runs(block, gradients[0], k_NGD.shape[1], padded=False)
            to_v_BKD = weight_BQK.to(v_BKD.dtype).transpose(1, 2) @ to_seen_BQD
            _add_paths(block, to_v_BKD, to_v_NGD)
            to_weight_BQK = (to_seen_BQD @ v_BKD.transpose(1, 2)).float()
            share_BQ1 = (to_weight_BQK * weight_BQK).sum(-1, keepdim=True)
            to_score_BQK = to_weight_BQK.sub_(share_BQ1).mul_(weight_BQK).mul_(context.scale)
            to_score_BQK = to_score_BQK.to(q_BQD.dtype)
            to_q.append(_slots(block, to_score_BQK @ k_BKD, q_NHD))
            _add_paths(block, to_score_BQK.transpose(1, 2) @ q_BQD, to_k_NGD)
        to_q_NHD = torch.cat(to_q).index_select(0, context.tree.slot_N)
        return to_q_NHD, to_k_NGD, to_v_NGD, None, None, None


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    tree: Tree | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: query (1, H, N, D), key and value (1, G, N, D), to (1, N, H, D)."""
    if tree is None:
        if attention_mask is not None and attention_mask.shape[-1] != key.shape[2]:
            raise ValueError(f"a {type(module).__name__} is not told which tokens it sees")
        given = (module, query, key, value, attention_mask, scaling)
        return eager_attention_forward(*given, dropout=dropout, **others)
    if others.get("softcap") is not None or others.get("s_aux") is not None:
        raise ValueError("attention with soft-capped scores or sinks is not supported")
    q_NHD, k_NGD, v_NGD = (states[0].transpose(0, 1) for states in (query, key, value))
    seen_NHD: Tensor = TreeAttention.apply(q_NHD, k_NGD, v_NGD, tree, scaling, sliding_window)
    return seen_NHD[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)


def _laid_out(
    block: Block, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the runs, (B, R x Q, D); keys and values of their paths, (B, K, D)."""
    q_BQD = _runs(block, q_NHD, k_NGD.shape[1])
    return q_BQD, _paths(block, k_NGD), _paths(block, v_NGD)


def _weights(
    block: Block, q_BQD: Tensor, k_BKD: Tensor, scale: float, window: int | None
) -> Tensor:
    """Attention probabilities (B, R x Q, K), float32."""
    scores = (q_BQD @ k_BKD.transpose(1, 2)).float().mul_(scale)
    place_K = torch.arange(block.path_SK.shape[1], device=scores.device)
    place_SQ1 = block.place_SQ[..., None]
    hidden_SQK = place_K > place_SQ1
    if window is not None:
        hidden_SQK |= place_K <= place_SQ1 - window
    runs, longest, longest_path = hidden_SQK.shape
    laid = scores.view(runs, -1, longest, longest_path)
    laid.masked_fill_(hidden_SQK[:, None], -torch.inf)
    return torch.softmax(scores, -1)


def _runs(block: Block, of_NHD: Tensor, groups: int, *, padded: bool = True) -> Tensor:
    """Tokens' heads as runs, (B, R x Q, D); not ``padded``: 0 where there is no token."""
    runs, longest = block.run_SQ.shape
    heads, size = of_NHD.shape[1:]
    laid = of_NHD.index_select(0, block.run_SQ.flatten())
    if not padded:
        laid.mul_(block.real_SQ.flatten()[:, None, None])
    laid = laid.view(runs, longest, groups, heads // groups, size).permute(0, 2, 3, 1, 4)
    return laid.reshape(runs * groups, -1, size)


def _slots(block: Block, from_BQD: Tensor, like_NHD: Tensor) -> Tensor:
    """Back from runs to slots, one behind the other: (S x Q, H, D)."""
    runs, longest = block.run_SQ.shape
    heads, size = like_NHD.shape[1:]
    laid = from_BQD.view(runs, -1, heads * runs // len(from_BQD), longest, size)
    return laid.permute(0, 3, 1, 2, 4).reshape(runs * longest, heads, size)


def _paths(block: Block, of_NGD: Tensor) -> Tensor:
    """Tokens' groups as paths: (B, K, D)."""
    runs, longest = block.path_SK.shape
    laid = of_NGD.index_select(0, block.path_SK.flatten())
    return (
        laid.view(runs, longest, *of_NGD.shape[1:])
        .transpose(1, 2)
        .reshape(-1, longest, of_NGD.shape[2])
    )


def _add_paths(block: Block, from_BKD: Tensor, to_NGD: Tensor) -> None:
    """What runs send to their paths, added to the tokens; it is 0 where there is none."""
    runs, longest = block.path_SK.shape
    laid = from_BKD.view(runs, -1, longest, from_BKD.shape[2]).transpose(1, 2)
    to_NGD.index_add_(0, block.path_SK.flatten(), laid.reshape(-1, *to_NGD.shape[1:]))
