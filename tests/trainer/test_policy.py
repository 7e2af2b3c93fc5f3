"""What the policy may do to need less memory changes no bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from services.trainer.batch import pack
from services.trainer.learner import Learner
from services.trainer.lora import LoraPolicy, policy_of
from services.trainer.policy import Policy
from services.trainer.settings import Settings
from tailrace.weights.tensors import digest
from tests.trainer.test_learner import answer
from tests.trainer.traffic import MODEL

GIVEN = [answer(n) for n in range(8)]


@pytest.mark.parametrize("rank", [0, 4], ids=["all weights", "an adapter"])
def test_activation_checkpointing_ends_on_the_same_bits(tiny_model: Path, rank: int) -> None:
    digests = []
    for again in (False, True):
        settings = Settings(model=MODEL, activation_checkpointing=again, lora_rank=rank)
        learner = Learner(policy_of(tiny_model, settings), settings)
        assert isinstance(learner.policy, LoraPolicy) == bool(rank)
        for _ in range(2):
            learner.step(GIVEN, lr=1e-2, objective="cispo")
        digests.append(digest(learner.policy.published()))
    assert digests[0] == digests[1] != digest(Policy(tiny_model).published())


def kept_bytes(policy: Policy) -> int:
    """What a forward pass keeps for the backward pass, beside the weights."""
    weights = {parameter.data_ptr() for parameter in policy.parameters.values()}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.logp(pack(GIVEN, [1.0] * 8)).sum().backward()
    return sum(size for place, size in sizes.items() if place not in weights)


def test_with_it_layers_keep_what_comes_in_and_no_more(tiny_model: Path) -> None:
    policies = [Policy(tiny_model, compute="float32", checkpointing=c) for c in (False, True)]
    every, few = map(kept_bytes, policies)
    assert few < every / 3


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    config = GraniteConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        logits_scaling=8.0,
    )
    GraniteForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a granite scales its logits"):
        Policy(tmp_path)
