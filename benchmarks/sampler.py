"""Samples answers from published weights in this process, with the log-probabilities they had.

In: prompts as token ids, weights as they are published. Out: tokens and, for each, its
log-probability under exactly the distribution that it was drawn from, as the engine would say it.
The prompts' common prefix is computed once, an answer that has ended leaves the batch. For studies
that must hold the weights of an answer in their hands; the system itself samples with vLLM. Called
by :mod:`benchmarks.lag`.

Letters of shapes: B answers still going on, P prefix tokens, L the prompts' other tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
import transformers

from tailrace.weights.tensors import Tensors

MIN_PREFIX_TOKENS = 8
"""A shorter common prefix is not worth a forward pass of its own."""


class Sample(msgspec.Struct, frozen=True):
    """One answer."""

    tokens: list[int]
    """The end token included, where it ended by itself."""
    logprobs: list[float]
    finished: bool
    """Whether it ended by itself."""


class Sampler:
    """One causal language model on the CPU, in float32. For one thread."""

    def __init__(self, folder: Path, *, end: int | None = None) -> None:
        """``end`` is the token that ends an answer; None: all are as long as they may be."""
        transformers.utils.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self._model = model.eval()
        self._end = end

    @torch.no_grad()
    def load(self, published: Tensors) -> None:
        """Take published bfloat16 weights; all of them."""
        for name, parameter in self._model.named_parameters():
            bits = np.array(published[name].bits).view(np.int16)
            parameter.copy_(torch.from_numpy(bits).view(torch.bfloat16).view(parameter.shape))

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[list[int]], *, max_tokens: int, temperature: float, seed: int
    ) -> list[Sample]:
        """An answer to each prompt. The same for the same weights, prompts and seed."""
        chance = torch.Generator().manual_seed(seed)
        cache = transformers.DynamicCache()
        logits_BV, real_BK, place_B = self._begin(prompts, cache)
        rows = list(range(len(prompts)))
        tokens: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        while True:
            logp_BV = torch.log_softmax(logits_BV.float() / temperature, -1)
            token_B1 = torch.multinomial(logp_BV.exp(), 1, generator=chance)
            logp_B = logp_BV.gather(1, token_B1)[:, 0]
            for row, token, logp in zip(
                rows, token_B1[:, 0].tolist(), logp_B.tolist(), strict=True
            ):
                tokens[row].append(token)
                logprobs[row].append(logp)
            going = [i for i, row in enumerate(rows) if tokens[row][-1] != self._end]
            if not going or len(tokens[rows[going[0]]]) == max_tokens:
                break
            if len(going) < len(rows):
                kept = torch.tensor(going)
                cache.batch_select_indices(kept)
                token_B1, real_BK, place_B = token_B1[kept], real_BK[kept], place_B[kept]
                rows = [rows[i] for i in going]
            real_BK = torch.cat([real_BK, real_BK.new_ones(len(rows), 1)], 1)
            logits_BV = self._model(
                input_ids=token_B1,
                attention_mask=real_BK,
                position_ids=place_B[:, None],
                past_key_values=cache,
            ).logits[:, -1]
            place_B = place_B + 1
        return [
            Sample(t, x, finished=t[-1] == self._end) for t, x in zip(tokens, logprobs, strict=True)
        ]

    def _begin(
        self, prompts: Sequence[list[int]], cache: transformers.DynamicCache
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits of the first token, which keys are real, the next position) of each row."""
        # The last token of each prompt is left to its row: there the logits are taken.
        prefix = len(commonprefix([prompt[:-1] for prompt in prompts]))
        prefix = prefix if prefix >= MIN_PREFIX_TOKENS else 0
        if prefix:
            first_1P = torch.tensor([prompts[0][:prefix]])
            self._model(input_ids=first_1P, past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        rest = [prompt[prefix:] for prompt in prompts]
        width = max(map(len, rest))
        ids_BL = torch.tensor([row + [0] * (width - len(row)) for row in rest])
        length_B = torch.tensor([len(row) for row in rest])
        place_L = torch.arange(width)
        # Padding stays in the cache, where the mask hides it from every later token.
        real_BL = (place_L < length_B[:, None]).long()
        real_BK = torch.cat([real_BL.new_ones(len(rest), prefix), real_BL], 1)
        states_BLD = self._model.base_model(
            input_ids=ids_BL,
            attention_mask=real_BK,
            position_ids=(prefix + place_L).expand(len(rest), -1),
            past_key_values=cache,
        ).last_hidden_state
        last_BD = states_BLD[torch.arange(len(rest)), length_B - 1]
        return self._model.get_output_embeddings()(last_BD), real_BK, prefix + length_B
