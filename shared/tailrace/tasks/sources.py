"""Who answers tasks when a version is measured: a gateway, or a model folder. Always greedily.

:class:`Served` asks any OpenAI-compatible server; tailrace's gateway also says which weights
answered, and is told not to learn from it. :class:`Folder` runs transformers here: torch is
imported when it is made. Both answer in the order of the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import httpx

from tailrace.tasks.benchmark import Benchmark, Task
from tailrace.tasks.scoring import Reply

_BATCH = 8


class Source(Protocol):
    """Gives a reply and the weight versions that made it, task by task."""

    def replies(self, benchmark: Benchmark, tasks: Sequence[Task]) -> list[tuple[Reply, list[int]]]:
        """Raises ValueError where an answer cannot be had."""


class Served:
    """A server at a base URL, with or without ``/v1``; so many requests ``at_once``."""

    def __init__(
        self, url: str, *, model: str, key: str | None, at_once: int, timeout_s: float = 300.0
    ) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers["x-tailrace-learn"] = "false"
        base = url.rstrip("/").removesuffix("/v1")
        self._model, self._at_once = model, at_once
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout_s)

    def replies(self, benchmark: Benchmark, tasks: Sequence[Task]) -> list[tuple[Reply, list[int]]]:
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(lambda task: self._reply(benchmark, task), tasks))

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def _reply(self, benchmark: Benchmark, task: Task) -> tuple[Reply, list[int]]:
        chat = task.messages is not None
        body = {
            "model": self._model,
            "temperature": 0.0,
            "max_tokens": benchmark.verifier.max_tokens,
            ("messages" if chat else "prompt"): task.asked,
        }
        route = "/v1/chat/completions" if chat else "/v1/completions"
        headers = {"x-tailrace-task": benchmark.name}
        try:
            found = self._http.post(route, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise ValueError(f"{self._http.base_url}: {error or repr(error)}") from None
        if found.status_code != 200:
            text = found.text[:300]
            raise ValueError(f"{task.id}: {found.request.url}: {found.status_code} {text}")
        try:
            choice = found.json()["choices"][0]
            text = (choice["message"]["content"] if chat else choice["text"]) or ""
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{task.id}: {found.request.url}: no answer in it") from None
        said = found.headers.get("x-tailrace-weight-versions", "")
        reply = Reply(task=task, text=text, finish_reason=choice.get("finish_reason"))
        return reply, [int(number) for number in said.split(",") if number.isdecimal()]


class Folder:
    """A model folder of one version. Raises ValueError where torch or transformers is not there."""

    def __init__(self, folder: Path, version: int) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
            from transformers.utils import logging
        except ImportError as error:
            raise ValueError(
                f"--version runs the model here and needs {error.name}: install torch and "
                "transformers (the group trainer of a checkout), or leave it out to measure "
                "what the gateway serves"
            ) from None
        logging.disable_progress_bar()
        self._version = version
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # A processor without bfloat16 of its own is many times faster so, on the same weights.
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        self._words = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._model = model.eval().to(self._device)
        given = model.generation_config.eos_token_id
        ends = given if isinstance(given, list) else [given]
        self._ends = sorted({one for one in (*ends, self._words.eos_token_id) if one is not None})
        pad = self._words.pad_token_id
        self._pad = pad if pad is not None else self._ends[0] if self._ends else 0
        # What answers must be the weights, not what the folder's defaults add.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self._ends or None, pad_token_id=self._pad
        )

    def replies(self, benchmark: Benchmark, tasks: Sequence[Task]) -> list[tuple[Reply, list[int]]]:
        prompts = [self._tokens(task) for task in tasks]
        order = sorted(range(len(tasks)), key=lambda at: len(prompts[at]))
        found: dict[int, Reply] = {}
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            made = self._generate([prompts[at] for at in batch], benchmark.verifier.max_tokens)
            for at, tokens in zip(batch, made, strict=True):
                found[at] = self._reply(tasks[at], tokens)
        return [(found[at], [self._version]) for at in range(len(tasks))]

    def _tokens(self, task: Task) -> list[int]:
        if task.messages is None:
            tokens = self._words(task.prompt)["input_ids"]
        else:
            if not self._words.chat_template:
                raise ValueError(f"{task.id}: the model has no chat template")
            tokens = self._words.apply_chat_template(
                task.asked, add_generation_prompt=True, return_dict=True
            )["input_ids"]
        if not tokens:
            raise ValueError(f"{task.id}: the prompt has no tokens")
        return list(tokens)

    def _generate(self, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
        import torch

        width = max(map(len, prompts))
        ids = [[self._pad] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        with torch.inference_mode():
            whole: Any = self._model.generate(
                torch.tensor(ids, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=max_tokens,
            )
        return [list(row[width:]) for row in whole.tolist()]

    def _reply(self, task: Task, tokens: list[int]) -> Reply:
        end = next((at for at, token in enumerate(tokens) if token in self._ends), None)
        kept = tokens if end is None else tokens[:end]
        return Reply(
            task=task,
            text=self._words.decode(kept, skip_special_tokens=True),
            finish_reason="length" if end is None else "stop",
            token_ids=kept,
        )
