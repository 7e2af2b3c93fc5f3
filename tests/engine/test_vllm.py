"""Command line and environment of vLLM, and (soak) a real one with the tiny model."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import time

import numpy as np
import pytest

from services.engine.admin import HttpAdmin, Refused
from services.engine.settings import Settings
from services.engine.slot import Slot
from services.engine.swap import Load, Swap
from services.engine.vllm import Vllm, command, core_numbers, environment
from services.local.ports import free_port
from tailrace.weights import folder
from tailrace.weights.tensors import Tensor, digest

TOKENS = [5, 77, 130, 9, 300, 41, 77, 2, 260, 33, 12, 8]


def test_command_and_environment() -> None:
    settings = Settings(model_folder=Path("base"), cores="0,2-3", vllm_arguments=("--seed", "1"))
    words = command(settings)
    assert words[words.index("--middleware") + 1] == "tailrace.plugins.admin.Guard"
    assert words[words.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[-2:] == ["--seed", "1"]
    ours = environment(settings, "secret", {"PATH": "/bin", "TAILRACE_ENGINE_ADMIN_TOKEN": "old"})
    assert ours["TAILRACE_ENGINE_ADMIN_TOKEN"] == "secret" and "secret" not in " ".join(words)
    assert ours["OMP_NUM_THREADS"] == "3" and ours["GOMP_CPU_AFFINITY"] == "0 2 3"
    assert ours["PATH"] == "/bin"


def test_core_numbers() -> None:
    assert core_numbers("0") == [0] and core_numbers("0-2,5") == [0, 1, 2, 5]
    with pytest.raises(ValueError, match="invalid literal"):
        core_numbers("all")


@pytest.fixture
def server(tiny_model: Path, tmp_path: Path) -> Iterator[HttpAdmin]:
    settings = Settings(
        model_folder=tiny_model, vllm_port=free_port(), cores="0", kv_cache_mib=64, model="tiny"
    )
    vllm = Vllm(settings, "token", os.environ, tmp_path / "vllm.log")
    admin = HttpAdmin(f"http://127.0.0.1:{settings.vllm_port}", "token", model="tiny")
    vllm.start()
    end = time.monotonic() + 240
    while not admin.healthy():
        assert vllm.exit_code() is None and time.monotonic() < end, vllm.last_words()
        time.sleep(0.2)
    yield admin
    admin.close()
    vllm.stop()


def bits_of(tensor: Tensor, change: float) -> Tensor:
    """The tensor with noise of ``change`` of its mean magnitude."""
    import torch

    values = torch.from_numpy(tensor.float32().copy())
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(tensor.shape))
    noisy = (values + change * values.abs().mean() * noise.float()).bfloat16()
    return Tensor.of("bfloat16", tensor.shape, noisy.view(torch.int16).numpy().view(np.uint16))


def expected(model: Path, tensors: dict[str, Tensor]) -> list[float]:
    """The logprobs of TOKENS under these weights, by transformers."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    state = reference.state_dict()
    for name, tensor in tensors.items():
        state[name].copy_(torch.from_numpy(tensor.float32()))
    with torch.no_grad():
        logp = reference(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
    return [float(logp[at, token]) for at, token in enumerate(TOKENS[1:])]


def distance(left: list[float], right: list[float]) -> float:
    return float(np.abs(np.array(left) - np.array(right)).mean())


@pytest.mark.soak
def test_a_real_vllm_computes_with_what_was_loaded(
    server: HttpAdmin, tiny_model: Path, tmp_path: Path
) -> None:
    base = dict(folder.read(tiny_model))
    slot = Slot([tmp_path], "t")
    swap = Swap(server, clock=time.monotonic, wait=time.sleep)

    def load(version: int, tensors: dict[str, Tensor]) -> list[float]:
        mark = digest(tensors)
        swap.load(Load(version=version, digest=mark, path=str(slot.write(tensors, mark))))
        assert server.weight_info() == str(version) and not server.is_paused()
        return server.score(TOKENS)

    was = load(0, base)
    assert distance(was, expected(tiny_model, base)) < 0.05
    # The embedding alone: the tied head, which vLLM repacks on CPU, must follow.
    head = base | {"model.embed_tokens.weight": bits_of(base["model.embed_tokens.weight"], 3.0)}
    now = load(1, head)
    assert distance(now, expected(tiny_model, head)) < 0.05 < 0.1 < distance(now, was)
    every = {name: bits_of(tensor, 0.5) for name, tensor in base.items()}
    assert distance(load(2, every), expected(tiny_model, every)) < 0.05
    # An update that was left open by a killed engine: the next swap fills and closes it.
    server.pause()
    server.start()
    server.update(str(slot.write(head, digest(head))), digest(head))
    assert distance(load(3, base), was) == 0
    # A file of another version, and one with a tensor missing, are refused.
    server.pause()
    server.start()
    with pytest.raises(Refused, match="holds"):
        server.update(str(slot.write(head, "another")), digest(head))
    part = {name: tensor for name, tensor in base.items() if "layers.1.mlp" not in name}
    server.start()
    server.update(str(slot.write(part, digest(part))), digest(part))
    with pytest.raises(Refused, match="no weights for"):
        server.finish("9")
    assert distance(load(4, every), expected(tiny_model, every)) < 0.05
