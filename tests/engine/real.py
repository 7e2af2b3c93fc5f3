"""A real vLLM with a tiny model, and what transformers says of the same weights.

The shapes are those of the dense families, with biases, norms and heads that a random
initialisation would leave at zero or one filled in, so that a tensor which does not arrive shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import json
import os
from pathlib import Path
import time
from typing import Any
import warnings

import httpx
import msgspec
import numpy as np

from services.engine.admin import HttpAdmin
from services.engine.settings import Settings
from services.engine.slot import Slot
from services.engine.swap import Load, Swap
from services.engine.vllm import Vllm
from services.local.ports import free_port
from tailrace.weights import folder as model_folder
from tailrace.weights.tensors import Tensor, Tensors, digest
from tests import tinymodel

TOKENS = list(range(3, 40))
TOKEN = "real-token"
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
SHAPES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral")


class Answer(msgspec.Struct, frozen=True):
    """Of ``/inference/v1/generate``, as any user has it."""

    tokens: list[int]
    logprobs: list[float]
    spans: list[tuple[str, int, int]]
    """(label, first token, end)."""


def ask(
    url: str,
    prompt: Sequence[int],
    count: int,
    *,
    model: str = "tiny",
    begun: Callable[[], None] = lambda: None,
) -> Answer:
    """The likeliest ``count`` tokens, streamed. Raises when the answer is not whole. ``begun`` is
    called whenever tokens came."""
    sampling = {"max_tokens": count, "temperature": 0.0, "logprobs": 0, "ignore_eos": True}
    body = {"model": model, "token_ids": list(prompt), "sampling_params": sampling, "stream": True}
    tokens: list[int] = []
    logprobs: list[float] = []
    spans: list[tuple[str, int, int]] = []
    with httpx.stream(
        "POST", f"{url}/inference/v1/generate", json=body, timeout=120, trust_env=False
    ) as stream:
        stream.raise_for_status()
        for line in stream.iter_lines():
            text = line.removeprefix("data: ")
            if not line.startswith("data: ") or text == "[DONE]":
                continue
            for choice in json.loads(text)["choices"]:
                tokens += choice["token_ids"] or []
                logprobs += [item["logprob"] for item in choice["logprobs"]["content"]]
                for span in choice["weight_versions"] or ():
                    spans.append((span["version"], span["start"], span["end"]))
            begun()
    assert len(tokens) == len(logprobs) == count == spans[-1][2], "an answer was cut"
    return Answer(tokens, logprobs, spans)


def core(number: int) -> str:
    """One of the cores that there are: servers beside each other get a number of their own."""
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[number % len(cores)])


class RealVllm(msgspec.Struct, frozen=True):
    """One that runs, and its parts."""

    admin: HttpAdmin
    process: Vllm
    settings: Settings
    folder: Path
    """For slots."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.vllm_port}"

    def wait(self) -> None:
        """Until it serves."""
        end = time.monotonic() + 240
        while not self.admin.healthy():
            assert self.process.exit_code() is None and time.monotonic() < end, (
                self.process.last_words()
            )
            time.sleep(0.1)

    def swap(self, **more: Any) -> Swap:
        return Swap(self.admin, clock=time.monotonic, wait=time.sleep, **more)

    def load_of(self, version: int, tensors: Mapping[str, Tensor]) -> Load:
        mark = digest(tensors)
        path = Slot([self.folder], f"v{version}").write(tensors, mark)
        return Load(version=version, digest=mark, path=str(path))

    def load(self, version: int, tensors: Mapping[str, Tensor]) -> list[float]:
        """Swap a version in; the logprobs of TOKENS under it."""
        self.swap().load(self.load_of(version, tensors))
        assert self.admin.weight_info() == str(version) and not self.admin.is_paused()
        return self.admin.score(TOKENS)


@contextlib.contextmanager
def real_vllm(model: Path, folder: Path, **more: Any) -> Iterator[RealVllm]:
    """A vLLM that serves the folder ``model`` as ``tiny``."""
    with starting_vllm(model, folder, **more) as starting:
        starting.wait()
        yield starting


@contextlib.contextmanager
def starting_vllm(model: Path, folder: Path, **more: Any) -> Iterator[RealVllm]:
    """As :func:`real_vllm`; whoever uses it waits first."""
    chosen: dict[str, Any] = {"cores": core(0), "kv_cache_mib": 64, "model": "tiny"} | more
    settings = Settings(model_folder=model, vllm_port=free_port(), **chosen)
    vllm = Vllm(settings, TOKEN, os.environ, folder / "vllm.log")
    admin = HttpAdmin(f"http://127.0.0.1:{settings.vllm_port}", TOKEN, model="tiny")
    vllm.start()
    try:
        yield RealVllm(admin, vllm, settings, folder)
    finally:
        admin.close()
        vllm.stop()


def write_shape(folder: Path, shape: str, *, tied: bool, seed: int = 0) -> Path:
    """A folder with a tiny random model of a family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoModelForCausalLM

        tokenizer = tinymodel.tokenizer()
        model = AutoModelForCausalLM.from_config(_config(shape, tied), dtype=torch.float32)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=random)
                if parameter.dim() > 1:
                    parameter.copy_(0.2 * noise)
                else:
                    parameter.add_(0.3 * noise)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _config(shape: str, tied: bool) -> Any:
    import transformers as t

    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = SIZES | ids | {"tie_word_embeddings": tied}
    gemma = sizes | {"head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}
    if shape == "llama":
        return t.LlamaConfig(**sizes)
    if shape == "mistral":
        return t.MistralConfig(**sizes, head_dim=32, sliding_window=None)
    if shape == "qwen2":
        return t.Qwen2Config(**sizes)
    if shape == "qwen3":
        return t.Qwen3Config(**sizes, head_dim=32)
    if shape == "gemma":
        return t.GemmaConfig(**gemma)
    if shape == "gemma2":
        return t.Gemma2Config(**gemma, query_pre_attn_scalar=32, sliding_window=64)
    if shape == "gemma3":
        return t.Gemma3TextConfig(**gemma, query_pre_attn_scalar=32, sliding_window=64)
    raise ValueError(shape)


def noisy(tensor: Tensor, change: float) -> Tensor:
    """The tensor with noise of ``change`` of its mean magnitude."""
    import torch

    values = torch.from_numpy(tensor.float32().copy())
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(tensor.shape))
    changed = (values + change * values.abs().mean() * noise.float()).bfloat16()
    return Tensor.of("bfloat16", tensor.shape, changed.view(torch.int16).numpy().view(np.uint16))


class Reference:
    """The model of a folder, in float32, by transformers: with whichever weights it is asked."""

    def __init__(self, model: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from transformers import AutoModelForCausalLM

            self._model = AutoModelForCausalLM.from_pretrained(
                model, dtype=torch.float32, attn_implementation="eager"
            ).eval()

    def logprobs(self, tensors: Mapping[str, Tensor], tokens: Sequence[int]) -> list[float]:
        """Of each token but the first."""
        logp = self._logits(tensors, tokens).log_softmax(-1)
        return [float(logp[at, token]) for at, token in enumerate(tokens[1:])]

    def greedy(
        self, tensors: Mapping[str, Tensor], prompt: Sequence[int], count: int
    ) -> tuple[list[int], float]:
        """What follows most likely, and the narrowest lead of a token over the next best, in
        nats."""
        tokens, lead = list(prompt), float("inf")
        for _ in range(count):
            best = self._logits(tensors, tokens)[-1].topk(2)
            tokens.append(int(best.indices[0]))
            lead = min(lead, float(best.values[0] - best.values[1]))
        return tokens[len(prompt) :], lead

    def _logits(self, tensors: Mapping[str, Tensor], tokens: Sequence[int]) -> Any:
        import torch

        state = self._model.state_dict()
        for name, tensor in tensors.items():
            state[name].copy_(torch.from_numpy(tensor.float32()))
        with torch.no_grad():
            return self._model(torch.tensor([list(tokens)])).logits[0]


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Mean absolute difference, in nats."""
    return float(np.abs(np.array(left) - np.array(right)).mean())


def every_noisy(tensors: Mapping[str, Tensor], change: float) -> Tensors:
    """All of a model's tensors with noise."""
    return {name: noisy(tensor, change) for name, tensor in tensors.items()}


class Models:
    """The folder that vLLM was started from, another model of its shape, and what both say."""

    def __init__(self, where: Path) -> None:
        self.folder = write_shape(where / "v0", "llama", tied=True)
        self.base: Tensors = dict(model_folder.read(self.folder))
        other = write_shape(where / "v1", "llama", tied=True, seed=1)
        self.other: Tensors = dict(model_folder.read(other))
        self.reference = Reference(self.folder)
