"""The engine and the trainer in turn, on the stock of users: our side of
:mod:`benchmarks.learning`.

    python -m benchmarks.loop SEED

    questions ──> vLLM ──> thumbs ──> trajectories ──> trainer ──> a version ──> engine ──> vLLM

The engine is the service with its own vLLM, the trainer is the service's whole class, between them
is Kafka; only the gateway and the wait for feedback are left out. Both have all cores: the next
questions are asked when the engine serves the version that the last answers made. The clock starts
with the first question, when everything is up, and stops when the share is reached. Prints one JSON
line.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks.servers import CACHE_DIR, Servers, say
from benchmarks.serving import Acks, start
from benchmarks.stock import LR, STEP_ANSWERS, STEPS_MAX, Stock
from services.gateway.answers import Delta
from services.gateway.engine import Engine
from services.local import model
from services.local.processor import own_dtype
from services.local.tastes import MAX_TOKENS, TEMPERATURE
from services.trainer import metrics
from services.trainer.answer import LOGPROBS_MODE
from services.trainer.learner import deterministic
from services.trainer.settings import Settings
from services.trainer.trainer import Trainer
from tailrace import ids, topics
from tailrace.events import Trajectory, TrajectoryContent
from tailrace.log.kafka import KafkaLog
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.stream import Writer
from tailrace.wire import Wire


def measure(seed: int) -> dict[str, Any]:
    """One run."""
    source = model.prepare(CACHE_DIR, say)
    cores = sorted(os.sched_getaffinity(0))
    deterministic(len(cores))
    with Servers() as servers:
        bootstrap, url = start(servers, source, cores)
        settings = Settings(
            kafka=bootstrap,
            model=model.NAME,
            model_dir=source,
            state_dir=servers.folder,
            compute=own_dtype(),
            threads=len(cores),
            lr=LR,
            batch_answers=STEP_ANSWERS,
        )
        log, wire = KafkaLog(bootstrap), Wire()
        trainer = Trainer(log, wire, settings, clock=time.monotonic, wall_ms=_now_ms)
        try:
            return Turns(Stock(seed), url, source, log, wire, trainer).run()
        finally:
            trainer.close()
            log.close()


class Turns:
    """One run's parts."""

    def __init__(
        self, stock: Stock, url: str, source: Path, log: KafkaLog, wire: Wire, trainer: Trainer
    ) -> None:
        from transformers import AutoTokenizer

        self._stock, self._url, self._trainer = stock, url, trainer
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self._writer = Writer(log.producer(), wire, source="rewards")
        self._acks = Acks(log, wire)

    def run(self) -> dict[str, Any]:
        """Until the users are satisfied, or :data:`STEPS_MAX`."""
        self._acks.wait(0)
        began_s = time.monotonic()
        spent_s = {"answers": 0.0, "trainer": 0.0, "engine": 0.0}
        reached_s = None
        for step in range(1, STEPS_MAX + 1):
            at_s = time.monotonic()
            made = [self._trajectory(*one) for one in asyncio.run(self._ask())]
            if self._stock.satisfied:
                reached_s = time.monotonic() - began_s
                break
            answered_s = time.monotonic()
            for one in made:
                self._writer.write(topics.TRAJECTORIES, one)
            self._writer.producer.flush()
            while not self._trainer.turn():
                pass
            trained_s = time.monotonic()
            self._acks.wait(self._trainer.head.version)
            served_s = time.monotonic()
            spent_s["answers"] += answered_s - at_s
            spent_s["trainer"] += trained_s - answered_s
            spent_s["engine"] += served_s - trained_s
            spent = " ".join(f"{name}={value / step:.2f}" for name, value in spent_s.items())
            say(f"tailrace step={step} share={self._stock.share:.3f} s_a_step: {spent}")
        self._trainer.stop()
        self._writer.producer.close()
        return {
            "seconds": reached_s,
            "answers": self._stock.answers,
            "share": self._stock.share,
            "spent_s": spent_s,
            "stall_share": metrics.stall_share(),
        }

    async def _ask(self) -> list[tuple[list[int], Delta]]:
        """The answers to the next questions, asked at once."""
        engine = Engine(self._url, wait_s=60.0, silence_s=60.0, now_s=time.monotonic)
        sampling = {"max_tokens": MAX_TOKENS, "temperature": TEMPERATURE, "logprobs": 0}

        async def one(prompt: list[int]) -> tuple[list[int], Delta]:
            answer = engine.generate(prompt, sampling, stream=False, shown=False)
            return prompt, [delta async for delta in answer][0]

        try:
            return await asyncio.gather(*(one(self._prompt()) for _ in range(STEP_ANSWERS)))
        finally:
            await engine.close()

    def _prompt(self) -> list[int]:
        messages = [{"role": "user", "content": self._stock.question()}]
        found: list[int] = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        return found

    def _trajectory(self, prompt: list[int], answer: Delta) -> Trajectory:
        """As rewards would write it, with a thumb."""
        now_ms = _now_ms()
        interaction = ids.new_interaction(f"default:u{self._stock.answers}", now_ms)
        return Trajectory(
            trajectory_id=ids.trajectory(interaction, 0, ["thumbs"]),
            interaction_id=interaction,
            event_time_ms=now_ms,
            reward=self._stock.thumb(answer.text, answer.finish_reason == "stop"),
            tenant="default",
            learn=True,
            model=model.NAME,
            logprobs_mode=LOGPROBS_MODE,
            sampling={"temperature": str(TEMPERATURE)},
            finish_reason=answer.finish_reason,
            weight_versions=answer.spans or [],
            closed_log_time_ms=now_ms,
            first_feedback_log_time_ms=now_ms,
            last_feedback_log_time_ms=now_ms,
            content=TrajectoryContent(
                prompt_token_ids=pack_ids(prompt),
                token_ids=pack_ids(answer.token_ids),
                logprobs=pack_logprobs([found.logprob for found in answer.logprobs]),
            ),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
