"""Tokens per second of the trainer, beside a plain transformers + AdamW loop on the same batch.

    python -m benchmarks.throughput [--batch chat|apart] [--repeats 5] [--threads 2] [--json]

SmolLM2-135M-Instruct, in what this processor computes fast, 48 answers a step, the trainer's
default loss. One side is :class:`services.trainer.learner.Learner` with its defaults; the other is
how such a loop is written at first: rows in the order given, padded on the right, logits of every
token, ``torch.optim.AdamW``. Each side is a process of its own; they take turns, a step each, after
two that do not count. Tokens are those of the answers: what a step is for.

- ``chat``: the demo's questions in the model's chat template, answers of 4 to 32 tokens
- ``apart``: prompts of 16 to 128 tokens that share nothing, answers of 16 to 192

The last line of the output is ``{tokens_per_s, plain_tokens_per_s, ratio, step_s, plain_step_s,
...}``: medians of the steps; ratio is that of the medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import json
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import random
from statistics import median
import time
from typing import Any

from services.local import model
from services.local.processor import own_dtype

CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailrace"
ANSWERS = 48
TEMPERATURE = 0.7
PLAIN_ANSWERS = 16
"""Rows of one plain pass: logits of all 48 at once are gigabytes."""
WARM = 2


def answers(folder: Path, batch: str) -> list[Any]:
    """The batch, as the trainer's answers: tokens without meaning, of these lengths."""
    from transformers import AutoTokenizer

    from services.local.questions import question
    from services.trainer.answer import Answer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    chance = random.Random(0)
    made = []
    for number in range(ANSWERS):
        if batch == "chat":
            asked = [{"role": "user", "content": question(chance)}]
            prompt = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_dict=False
            )
            length = chance.randint(4, 32)
        else:
            prompt = [chance.randrange(10, 40_000) for _ in range(chance.randint(16, 128))]
            length = chance.randint(16, 192)
        made.append(
            Answer(
                partition=0,
                offset=number,
                time_ms=0,
                trajectory_id=str(number),
                session="",
                prompt=prompt,
                tokens=[chance.randrange(10, 40_000) for _ in range(length)],
                logprobs=[-11.0] * length,
                temperature=TEMPERATURE,
                reward=float(chance.choice((-1, 1))),
                oldest_version=0,
                closed_ms=0,
            )
        )
    return made


def ours(folder: Path, given: Sequence[Any], threads: int) -> Callable[[], None]:
    """A step of the trainer."""
    from services.trainer import heap
    from services.trainer.learner import Learner, deterministic
    from services.trainer.policy import Policy
    from services.trainer.settings import Settings

    heap.keep()
    deterministic(threads)
    settings = Settings(threads=threads)
    learner = Learner(Policy(folder, compute=own_dtype()), settings)

    def step() -> None:
        learner.step(given, lr=settings.lr, objective="cispo")

    return step


def plain(folder: Path, given: Sequence[Any], threads: int) -> Callable[[], None]:
    """The same step, written down plainly."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    policy: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, own_dtype()))
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-5, betas=(0.9, 0.95), weight_decay=0)
    count = sum(len(answer.tokens) for answer in given)

    def step() -> None:
        for start in range(0, len(given), PLAIN_ANSWERS):
            part = given[start : start + PLAIN_ANSWERS]
            width = max(len(a.prompt) + len(a.tokens) for a in part)
            ids_BL = torch.zeros(len(part), width, dtype=torch.long)
            real_BL = torch.zeros_like(ids_BL)
            counts_BL, behaviour_BL = torch.zeros(2, len(part), width)
            for row, a in enumerate(part):
                end = len(a.prompt) + len(a.tokens)
                ids_BL[row, :end] = torch.tensor(a.prompt + a.tokens)
                real_BL[row, :end] = 1
                counts_BL[row, len(a.prompt) : end] = 1
                behaviour_BL[row, len(a.prompt) : end] = torch.tensor(a.logprobs)
            advantage_B1 = torch.tensor([[a.reward] for a in part])
            logits_BLV = policy(input_ids=ids_BL, attention_mask=real_BL).logits[:, :-1].float()
            logp_BLV = torch.log_softmax(logits_BLV / TEMPERATURE, -1)
            logp_BL = logp_BLV.gather(-1, ids_BL[:, 1:, None])[..., 0]
            ratio_BL = torch.exp(logp_BL - behaviour_BL[:, 1:]).clamp(max=3.0).detach()
            loss_BL = -ratio_BL * advantage_B1 * logp_BL * counts_BL[:, 1:]
            (loss_BL.sum() / count).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


SIDES = {"tailrace": ours, "plain": plain}


def _serve(side: str, batch: str, folder: Path, threads: int, pipe: Connection) -> None:
    """Steps on request, and how long each took, until None comes."""
    step = SIDES[side](folder, answers(folder, batch), threads)
    while pipe.recv() is not None:
        began_s = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - began_s)


def measure(batch: str, repeats: int, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Both sides, in turn."""
    folder = model.prepare(CACHE_DIR, say)
    given = answers(folder, batch)
    spawn = multiprocessing.get_context("spawn")
    pipes, times = {}, {side: list[float]() for side in SIDES}
    for side in SIDES:
        pipes[side], there = spawn.Pipe()
        given_to = (side, batch, folder, threads, there)
        spawn.Process(target=_serve, args=given_to, daemon=True).start()
    for number in range(WARM + repeats):
        for side, pipe in pipes.items():
            pipe.send(number)
            took_s = pipe.recv()
            say(f"{side:9} step {number - WARM + 1:2} {took_s:6.2f} s")
            if number >= WARM:
                times[side].append(took_s)
    for pipe in pipes.values():
        pipe.send(None)
    tokens = sum(len(a.tokens) for a in given)
    ours_s, plain_s = median(times["tailrace"]), median(times["plain"])
    return {
        "batch": batch,
        "compute": own_dtype(),
        "threads": threads,
        "answers": len(given),
        "prompt_tokens": sum(len(a.prompt) for a in given),
        "answer_tokens": tokens,
        "step_s": round(ours_s, 3),
        "plain_step_s": round(plain_s, 3),
        "tokens_per_s": round(tokens / ours_s, 1),
        "plain_tokens_per_s": round(tokens / plain_s, 1),
        "ratio": round(plain_s / ours_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--batch", choices=["chat", "apart"], default="chat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="say nothing else")
    options = parser.parse_args()

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    print(json.dumps(measure(options.batch, options.repeats, options.threads, say)))


if __name__ == "__main__":
    main()
