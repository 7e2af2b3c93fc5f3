"""Training an adapter: what it is, what is published of it, and that it is as exact as the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.trainer.batch import pack
from services.trainer.learner import Learner
from services.trainer.lora import LoraPolicy
from services.trainer.objectives.anchor import divergence
from services.trainer.plan import plan_of
from services.trainer.policy import Policy
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.weights import adapters, folder
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest, digest_files
from tailrace.wire import Wire
from tests.trainer.conftest import Mill
from tests.trainer.lives import run
from tests.trainer.test_learner import answer
from tests.trainer.traffic import MODEL, trajectory

GIVEN = [answer(n) for n in range(8)]
MODULES = ("q_proj", "down_proj")


def made(tiny_model: Path, **changes: Any) -> LoraPolicy:
    return LoraPolicy(
        tiny_model,
        **({"rank": 4, "alpha": 8.0, "modules": MODULES, "compute": "float32"} | changes),
    )


def learner_of(policy: Policy) -> Learner:
    return Learner(policy, Settings(model=MODEL, micro_answers=4))


def trained(tiny_model: Path, steps: int = 3, **changes: Any) -> LoraPolicy:
    policy = made(tiny_model, **changes)
    learner = learner_of(policy)
    for _ in range(steps):
        learner.step(GIVEN, lr=1e-2, objective="cispo")
    return policy


def logp(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.logp(pack(GIVEN, [0.0] * 8))


def test_it_begins_as_its_base_and_moves_the_adapter_alone(tiny_model: Path) -> None:
    base = Policy(tiny_model, compute="float32")
    policy = made(tiny_model)
    assert digest(policy.published()) == digest(base.published())
    assert torch.equal(logp(policy), logp(base))
    before = {name: master.clone() for name, master in policy.masters.items()}
    learner_of(policy).step(GIVEN, lr=1e-2, objective="cispo")
    learner_of(policy).step(GIVEN, lr=1e-2, objective="cispo")
    assert all(not torch.equal(before[name], m) for name, m in policy.masters.items())
    published = policy.published()
    moved = {name for name, t in published.items() if t.sha256 != policy.base[name].sha256}
    assert {name.split(".")[-2] for name in moved} == {*MODULES} and len(moved) == 4
    assert not torch.equal(logp(policy), logp(base))


@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
def test_merged_it_computes_what_the_published_model_does(tiny_model: Path, compute: str) -> None:
    policy = trained(tiny_model, compute=compute)
    whole = Policy(tiny_model, compute=compute)  # type: ignore[arg-type]
    whole.load(policy.published())
    beside = logp(policy)
    with policy.merged():
        assert torch.equal(logp(policy), logp(whole))
    assert torch.equal(logp(policy), beside), "merging leaves no trace"
    # Merged weights are rounded once more, to eight bits.
    torch.testing.assert_close(beside, logp(whole), rtol=0, atol=0.1)


def test_the_adapter_s_folder_is_the_policy(tiny_model: Path, tmp_path: Path) -> None:
    policy = trained(tiny_model)
    adapters.write(tmp_path / "adapter", policy.adapter())
    config = json.loads((tmp_path / "adapter" / adapters.CONFIG_FILE).read_text())
    (tmp_path / "adapter" / adapters.WEIGHTS_FILE).rename(tmp_path / "adapter/model.safetensors")
    tensors = folder.read(tmp_path / "adapter")
    assert {name.split(".lora_")[1] for name in tensors} == {"A.weight", "B.weight"}
    base = Policy(tiny_model, compute="float32")
    for name, linear in base._model.named_modules():
        if name.rpartition(".")[2] in config["target_modules"]:
            down, up = (
                torch.from_numpy(tensors[f"base_model.model.{name}.lora_{x}.weight"].float32())
                for x in "AB"
            )
            linear.weight.data += config["lora_alpha"] / config["r"] * up @ down
    torch.testing.assert_close(logp(base), logp(policy), rtol=0, atol=1e-5)


def test_peft_reads_the_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # what it says of itself
        import peft

        policy = trained(tiny_model)
        adapters.write(tmp_path / "adapter", policy.adapter())
        plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    one = GIVEN[0]
    ids = torch.tensor([one.prompt + one.tokens])
    with torch.no_grad():
        every = torch.log_softmax(model(input_ids=ids).logits[0] / one.temperature, -1)
        found = policy.logp(pack([one], [0.0]))
    row_T = torch.arange(len(one.prompt) - 1, ids.shape[1] - 1)
    torch.testing.assert_close(every[row_T, torch.tensor(one.tokens)], found, rtol=0, atol=1e-5)


def test_two_runs_are_bit_equal_and_state_goes_over(tiny_model: Path) -> None:
    one, other = trained(tiny_model), trained(tiny_model)
    assert digest(one.published()) == digest(other.published())
    assert digest(one.adapter().tensors) == digest(other.adapter().tensors)
    assert digest(trained(tiny_model, seed=1).published()) != digest(one.published())
    first, second = learner_of(one), learner_of(made(tiny_model, seed=1))
    first.step(GIVEN, lr=1e-2, objective="cispo")
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second.load_masters(state)
    assert digest(second.policy.published()) == digest(one.published())


def test_loaded_weights_are_a_new_base(tiny_model: Path) -> None:
    policy = trained(tiny_model)
    published = policy.published()
    again = made(tiny_model)
    again.load(published)
    assert digest(again.published()) == digest(published) == digest(again.base)
    assert all(not m.any() for n, m in again.masters.items() if ".lora_B." in n)


def test_a_checkpoint_has_the_base_that_is_not_the_folder_s(tiny_model: Path) -> None:
    policy = trained(tiny_model)
    assert not any(name.startswith("base.") for name in learner_of(policy).state())
    policy.load(policy.published())
    learner = learner_of(policy)
    learner.step(GIVEN, lr=1e-2, objective="cispo")
    state = {name: tensor.clone() for name, tensor in learner.state().items()}
    again = learner_of(made(tiny_model))
    again.load_masters(state)
    assert digest(again.policy.published()) == digest(policy.published())
    with pytest.raises(ValueError, match="do not fit"):
        again.load_masters({name: t for name, t in state.items() if "embed" not in name})


@pytest.mark.parametrize("reseeded", [False, True])
def test_it_is_anchored_to_version_0(tiny_model: Path, reseeded: bool) -> None:
    """Adapters off, on the model folder's weights: as a base of its own says."""
    anchored = Settings(model=MODEL, micro_answers=8, kl_coefficient=0.5)
    apart = trained(tiny_model)
    policy = made(tiny_model)
    learner = Learner(policy, anchored)
    if reseeded:
        policy.load(apart.published())
    learner.step(GIVEN, lr=1e-2, objective="cispo")
    mine, state = logp(policy), digest(policy.published())
    batch = pack(GIVEN, [0.0] * 8)
    plan = plan_of(policy, learner._base, GIVEN, [batch], anchored)
    assert torch.equal(plan.base[0], logp(Policy(tiny_model, compute="float32")))
    assert torch.equal(logp(policy), mine) and digest(policy.published()) == state
    figures = learner.step(GIVEN, lr=1e-2, objective="cispo")
    away = divergence(mine, plan.base[0], batch.mask_T, estimator="k3")
    assert figures["kl_base"] == pytest.approx(float(away.sum() / batch.mask_T.sum()), rel=1e-2)
    assert figures["kl_base"] > 0


def test_a_checkpoint_on_the_folder_s_base_is_laid_on_it_again(tiny_model: Path) -> None:
    learner = learner_of(trained(tiny_model))
    state = {name: tensor.clone() for name, tensor in learner.state().items()}
    again = learner_of(made(tiny_model))
    again.policy.load(trained(tiny_model, steps=1).published())
    again.load_masters(state)
    assert digest(again.policy.published()) == digest(learner.policy.published())


def test_no_layer_of_that_name_is_said(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="no linear layer is named w_pack"):
        made(tiny_model, modules=("w_pack",))


def test_a_trainer_publishes_versions_and_adapters(mill: Mill) -> None:
    """The chain's versions are whole models; beside each that moves a weight lies its adapter."""
    lora = {"lora_rank": 4, "lora_modules": MODULES, "lr": 1e-2}
    trainer = mill.trainer(**lora)
    mill.put(*(trajectory(n) for n in range(16)))
    mill.drain()
    for _ in range(6):
        trainer.turn(0.0)
    trainer.stop()
    versions = mill.versions()
    chain = [u for u in versions if u.kind != "adapter"]
    found = [u for u in versions if u.kind == "adapter"]
    assert [u.kind for u in chain[:3]] == ["keyframe", "delta", "delta"]
    moved = [u for u in chain[1:] if u.digest != u.base_digest]
    assert len(found) == len(moved) == 2
    assert {(u.base_version, u.base_digest) for u in found} == {(0, chain[0].digest)}
    reader = Subscriber(mill.log, Wire(), model=MODEL, prefix="")
    reader.catch_up()
    fetched = adapters.fetch(reader, found[-1])
    policy = trainer._policy
    assert isinstance(policy, LoraPolicy)
    assert digest(fetched.tensors) == digest(policy.adapter().tensors)
    assert found[-1].config_digest == digest_files({adapters.CONFIG_FILE: fetched.config})
    assert digest(policy.published()) == chain[-1].digest
    reader.close()
    mill.lose(trainer)
    assert mill.audit().ok
    again = mill.trainer(**lora)
    assert again.recovery.reseeded is None and again.head.digest == chain[-1].digest
    assert digest(again._policy.published()) == chain[-1].digest


def test_a_reseeded_adapter_goes_on_at_the_next_restart(mill: Mill) -> None:
    """It is reseeded once: the checkpoint after it has the base that it lies on."""
    lora = {"lora_rank": 4, "lora_modules": MODULES, "lr": 1e-2}
    mill.put(*(trajectory(n) for n in range(8)))
    first = mill.trainer(**lora)
    run(first)
    mill.lose(first)
    mill.log.delete_before(topics.TRAJECTORIES.name, mill.log.ends(topics.TRAJECTORIES.name))
    second = mill.trainer(**lora)
    assert second.recovery.reseeded is not None
    assert second.head.digest == digest(second._policy.published())
    for restart in range(2):
        mill.put(*(trajectory(n) for n in range(8 + 8 * restart, 16 + 8 * restart)))
        run(second)
        head = second.head
        mill.lose(second)
        second = mill.trainer(**lora)
        assert second.recovery.reseeded is None and second.recovery.replayed == restart
        assert second.head.digest == head.digest == digest(second._policy.published())
    assert [bool(step.reseeded) for step in mill.steps()] == [False, True, False]
