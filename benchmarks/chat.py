"""The demo's questions and one of its tastes, put to SmolLM2-135M-Instruct, as a task.

Used by :mod:`benchmarks.lag` and :mod:`benchmarks.learning`.
"""

from __future__ import annotations

import os
from pathlib import Path
import random
import shutil
from typing import Any

from benchmarks.sampler import Sample
from services.local import model
from services.local.questions import question
from services.local.tastes import MAX_TOKENS, TASTES, TEMPERATURE, Manner

CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailrace"


class Chat:
    """The task, as :class:`benchmarks.stale.Task` wants it. Everybody votes, at once."""

    name = "smollm2"
    max_tokens = MAX_TOKENS
    temperature = TEMPERATURE

    def __init__(self, taste: str = "short") -> None:
        from transformers import AutoTokenizer

        self._taste = TASTES[taste]
        self.folder = model.prepare(CACHE_DIR, lambda said: None)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        self.end: int | None = self._tokenizer.eos_token_id

    def write(self, folder: Path, seed: int) -> Path:
        """The prepared model; the same for every seed."""
        shutil.copytree(self.folder, folder)
        return folder

    def prompt(self, chance: random.Random) -> list[int]:
        """One question, as the chat template puts it."""
        messages = [{"role": "user", "content": question(chance)}]
        found: list[int] = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        return found

    def quality(self, prompt: list[int], sample: Sample) -> float:
        """1 for an answer that the taste likes, else 0."""
        text = self._tokenizer.decode(sample.tokens, skip_special_tokens=True)
        return float(self._taste.likes(text, sample.finished))

    def reward(self, quality: float, chance: random.Random) -> float:
        """A thumb, which some press wrong."""
        wrong = chance.random() < Manner().wrong
        return 1.0 - quality if wrong else quality
