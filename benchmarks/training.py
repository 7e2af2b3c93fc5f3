"""Two successive versions of a model, as training makes them, for :mod:`benchmarks.deltas`.

In: a model folder and a learning rate. Out: the published bfloat16 tensors before and after one
step of AdamW, some steps in: its moments are warm and the float32 masters lie anywhere within their
rounding. Policy, batches, clipping, moments and the rounding ``spread`` are the trainer's
(:mod:`services.trainer.rounding`); ``nearest`` is what most others publish. The loss is the
likelihood of a text that is made here from a few words with a seed, so that nothing has to be
sampled or fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import random
from typing import Any

import torch
from transformers import AutoTokenizer

from services.local.processor import own_dtype
from services.trainer.answer import Answer
from services.trainer.batch import micro_batches
from services.trainer.policy import Policy
from services.trainer.settings import Settings
from tailrace.weights.tensors import Tensors

ANSWERS = 24
_WORDS = {
    "who": "the miller|a heron|my neighbour|the night train|an old dam|the council|her brother",
    "does": "watches|repairs|remembers|crosses|measures|paints|forgets|sells",
    "what": "the river|a broken gate|seven lanterns|the long bridge|wet stones|two letters",
    "when": "before dawn|in late autumn|without a word|after the flood|every second year",
    "ask": "Tell me what happens|Say it in one line|Describe the scene|Answer as a poet would",
}


def versions(folder: Path, lr: float, rounding: str, *, threads: int = 2) -> Iterator[Tensors]:
    """The base, then what is published after each step, without end."""
    torch.set_num_threads(threads)
    settings = Settings(lr=lr)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = Policy(folder, compute=own_dtype())
    optimizer = torch.optim.AdamW(
        list(policy.masters.values()),
        lr=lr,
        betas=(settings.beta1, settings.beta2),
        weight_decay=0.0,
        fused=True,
    )
    chance = random.Random(0)
    while True:
        yield policy.published()
        answers = [_answer(tokenizer, chance, number) for number in range(ANSWERS)]
        tokens = sum(len(answer.tokens) for answer in answers)
        for batch in micro_batches(answers, [1.0] * ANSWERS, micro_answers=8, micro_tokens=1024):
            loss = -policy.logp(batch).sum() / tokens
            loss.backward()
        gradients = policy.gradients()
        norm = float(torch.nn.utils.get_total_norm(gradients))
        torch._foreach_mul_(gradients, min(1.0, settings.max_grad_norm / norm))
        optimizer.step()
        policy.clear()
        policy.round()
        if rounding == "nearest":
            with torch.no_grad():
                for name, parameter in policy.parameters.items():
                    parameter.copy_(policy.masters[name].bfloat16())


def _answer(tokenizer: Any, chance: random.Random, number: int) -> Answer:
    """A sentence as a prompt, and one to five as an answer."""
    pick = {key: words.split("|") for key, words in _WORDS.items()}
    lines = [
        " ".join(chance.choice(pick[key]) for key in ("who", "does", "what", "when")) + "."
        for _ in range(chance.randint(2, 6))
    ]
    tokens = tokenizer.encode(" " + " ".join(lines[1:]))
    return Answer(
        partition=0,
        offset=number,
        time_ms=0,
        trajectory_id=str(number),
        session="",
        prompt=tokenizer.encode(f"{lines[0]} {chance.choice(pick['ask'])}:"),
        tokens=tokens,
        logprobs=[0.0] * len(tokens),
        temperature=1.0,
        reward=1.0,
        oldest_version=0,
        closed_ms=0,
    )
