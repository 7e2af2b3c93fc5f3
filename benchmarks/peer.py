"""TRL's GRPOTrainer on the stock of users: the other side of :mod:`benchmarks.learning`.

    python -m benchmarks.peer SEED

TRL's defaults, but for what both sides have in common: model, questions, temperature, length, lr,
answers of a step, float32 where the processor cannot multiply bfloat16, all cores. Eight answers to
a question, as GRPO needs groups. The clock starts with training, after everything is loaded, and
stops when the share is reached. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from datasets import Dataset
from datasets.table import InMemoryTable
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.chat import CACHE_DIR
from benchmarks.stock import LR, STEP_ANSWERS, STEPS_MAX, Stock
from services.local import model
from services.local.processor import own_dtype
from services.local.tastes import MAX_TOKENS, TEMPERATURE

GROUP = 8
"""TRL's default."""


class Clock(TrainerCallback):
    """When training began, and its end."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self.began_s = 0.0
        self.reached_s: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.began_s = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        control.should_training_stop = self.reached_s is not None
        print(
            f"trl step={state.global_step} share={self._stock.share:.3f} "
            f"s={time.monotonic() - self.began_s:.1f}",
            file=sys.stderr,
            flush=True,
        )

    def judged(self) -> None:
        """A batch of answers was."""
        if self._stock.satisfied and self.reached_s is None:
            self.reached_s = time.monotonic() - self.began_s


def measure(seed: int) -> dict[str, Any]:
    """One run."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = model.prepare(CACHE_DIR, lambda said: None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    stock = Stock(seed)
    clock = Clock(stock)

    def thumbs(completions: Any, completion_ids: Any, **rest: Any) -> list[float]:
        found = [
            stock.thumb(said[0]["content"], ids[-1] == tokenizer.eos_token_id)
            for said, ids in zip(completions, completion_ids, strict=True)
        ]
        clock.judged()
        return found

    prompts = [
        [{"role": "user", "content": stock.question()}]
        for _ in range(STEPS_MAX * STEP_ANSWERS // GROUP)
    ]
    with tempfile.TemporaryDirectory() as where:
        config = GRPOConfig(
            output_dir=str(Path(where)),
            seed=seed,
            learning_rate=LR,
            lr_scheduler_type="constant",
            per_device_train_batch_size=STEP_ANSWERS,
            num_generations=GROUP,
            max_completion_length=MAX_TOKENS,
            temperature=TEMPERATURE,
            max_steps=STEPS_MAX,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=own_dtype() == "bfloat16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=thumbs,
            args=config,
            # With a fingerprint: making one fails, datasets 5.2 cannot pickle pyarrow's types.
            train_dataset=Dataset(
                InMemoryTable.from_pydict({"prompt": prompts}), fingerprint=f"stock-{seed}"
            ),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return {
        "seconds": clock.reached_s,
        "answers": stock.answers,
        "share": stock.share,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
