"""A task that a tiny transformer learns from thumbs alone: say only words of the kind asked for.

Words are of :data:`KINDS` kinds, and a prompt ends with the key of one. So what is right depends on
the prompt, and a model with random weights is right by chance only. One thumb for a whole answer,
up with the share of its words that are right: which of them pleased is not said. Used by
:mod:`benchmarks.lag`.
"""

from __future__ import annotations

from pathlib import Path
import random

from benchmarks.sampler import Sample

KINDS = 4
WORDS = 48
"""Token w is of kind w mod KINDS; after them come the keys, and a token that begins."""
BEGIN = WORDS + KINDS
VOCABULARY = 64
NOISE = 1
"""Words in a prompt that mean nothing, so that prompts differ."""


class Kinds:
    """The task, as :class:`benchmarks.stale.Task` wants it."""

    name = "kinds"
    end = None
    max_tokens = 4
    temperature = 1.0
    thumbs = True
    """Else the reward is the share itself."""

    def write(self, folder: Path, seed: int) -> Path:
        """A Llama of 45 thousand weights, random, bfloat16."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=32,
            tie_word_embeddings=True,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        return folder

    def prompt(self, chance: random.Random) -> list[int]:
        """One prompt."""
        noise = [chance.randrange(WORDS) for _ in range(NOISE)]
        return [BEGIN, *noise, WORDS + chance.randrange(KINDS)]

    def quality(self, prompt: list[int], sample: Sample) -> float:
        """Share of the answer's tokens that are right."""
        asked = prompt[-1] - WORDS
        right = [token < WORDS and token % KINDS == asked for token in sample.tokens]
        return sum(right) / len(right)

    def reward(self, quality: float, chance: random.Random) -> float:
        """What is said of an answer of this quality."""
        return float(chance.random() < quality) if self.thumbs else quality
