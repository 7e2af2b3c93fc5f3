"""Each of TRL's trainers takes a step on what ``tailrace export`` wrote for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
import warnings

import pytest

from tests.copies.answers import Answers
from tests.copies.conftest import Command


def answers() -> Answers:
    made = Answers()
    for number in range(8):
        made.add(text=f"Yes, {number}.", reward=1.0, group_id=f"g{number}")
        made.add(text=f"No, {number}.", reward=-1.0, group_id=f"g{number}")
    made.add(text="Maybe.", edit="It is Paris.")
    return made


@pytest.mark.parametrize("form", ["sft", "dpo", "kto", "reward"])
def test_a_trainer_takes_a_step(
    form: str, tiny_model: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "set"
    found = command(answers().log, "export", "--to", folder, "--format", form, "--json")
    assert found["rows"] >= 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step, loss = _step(form, str(folder), str(tiny_model), str(tmp_path / "out"))
    assert step == 1 and loss == loss and loss > 0


def _step(form: str, folder: str, model: str, out: str) -> tuple[int, float]:
    from datasets import load_dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    import trl

    rows = load_dataset(folder, split="train", cache_dir=f"{out}/cache")
    given: dict[str, Any] = {
        "output_dir": out,
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    kinds = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
    }
    trainer_of, config_of = kinds[form]
    start: Any = model
    if form == "reward":
        start = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    trainer = trainer_of(
        model=start, args=config_of(**given), train_dataset=rows, processing_class=tokenizer
    )
    done = trainer.train()
    return done.global_step, done.training_loss
