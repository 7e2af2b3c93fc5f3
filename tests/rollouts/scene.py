"""Benchmarks in folders, answers made up, and a desk with a clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.rollouts.answer import Answer
from services.rollouts.desk import Desk
from services.rollouts.schedule import Schedule
from tailrace.events import VersionSpan
from tailrace.tasks import benchmark
from tailrace.tasks.benchmark import Benchmark

NOW_MS = 1_700_000_000_000
SUMS = 'kind = "number"\nmax_tokens = 8\n'


def line(number: int, **given: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"What is {number} + 1?"}]
    return {"id": f"t{number}", "messages": asked, "expected": number + 1} | given


def write(folder: Path, lines: list[dict[str, Any]], verifier: str = SUMS) -> Path:
    """A benchmark's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verifier.toml").write_text(verifier)
    (folder / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def a_benchmark(folder: Path, count: int = 3, verifier: str = SUMS) -> Benchmark:
    return benchmark.load(write(folder, [line(n) for n in range(count)], verifier))


def an_answer(text: str = "4", **given: Any) -> Answer:
    fields: dict[str, Any] = {
        "engine": "engine-0",
        "text": text,
        "token_ids": [11, 12, 2],
        "prompt_token_ids": [1, 5, 6],
        "logprobs": [-0.5, -0.25, -0.125],
        "finish_reason": "stop",
        "spans": [VersionSpan(version=7, start=0, end=3)],
        "began_ms": NOW_MS,
        "ended_ms": NOW_MS + 500,
    }
    return Answer(**fields | given)


def a_desk(one: Benchmark, **given: Any) -> Desk:
    fields: dict[str, Any] = {"share": 0.5, "slots": 8, "group_size": 3}
    return Desk(Schedule([one], seed=0), **fields | given)
