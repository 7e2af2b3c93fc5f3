"""A step does the same whatever the packing, and the same bits every time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import torch

from services.trainer.answer import Answer, Limits, read
from services.trainer.batch import micro_batches, pack
from services.trainer.learner import Learner, NonFinite
from services.trainer.policy import Policy
from services.trainer.settings import Settings
from tailrace.log.base import LogRecord
from tailrace.weights.tensors import digest
from tests.trainer.traffic import MODEL, trajectory

LIMITS = Limits(model=MODEL, vocabulary=512, max_tokens=256, max_reward=1e3)


def answer(number: int, **fields: object) -> Answer:
    record = LogRecord(
        topic="trajectories",
        partition=0,
        offset=number,
        time_ms=number,
        key=b"",
        value=b"",
        headers={},
    )
    found = read(record, trajectory(number), LIMITS)
    assert isinstance(found, Answer)
    return msgspec.structs.replace(found, **fields)


def test_the_share_of_what_devices_can_do_is_over_all_processes(tiny_model: Path) -> None:
    policy = Policy(tiny_model)
    policy.processes = 4
    learner = Learner(policy, Settings(model=MODEL, peak_tflops=1.0))
    found = learner.step([answer(n) for n in range(4)], lr=1e-3)
    weights = sum(p.numel() for p in policy.parameters.values())
    assert found["mfu"] == pytest.approx(6 * weights * found["tokens_per_s"] / 4e12)


@pytest.fixture(params=["bfloat16", "float32"])
def policy(request: pytest.FixtureRequest, tiny_model: Path) -> Policy:
    return Policy(tiny_model, compute=request.param)


def slow_logp(policy: Policy, one: Answer) -> list[float]:
    """One answer, alone, all logits."""
    ids = torch.tensor([one.prompt + one.tokens])
    with torch.no_grad():
        logits = policy._model(input_ids=ids).logits[0].float() / one.temperature
    logp = torch.log_softmax(logits, -1)
    start = len(one.prompt) - 1
    return [float(logp[start + i, token]) for i, token in enumerate(one.tokens)]


@pytest.mark.parametrize("cut", [0, 8], ids=["shared prefix", "little in common"])
def test_packed_logp_is_that_of_each_answer_alone(policy: Policy, cut: int) -> None:
    given = [answer(n, temperature=0.5 + n / 4) for n in range(6)]
    given = [msgspec.structs.replace(a, prompt=a.prompt[cut:]) for a in given]
    with torch.no_grad():
        packed = policy.logp(pack(given, [0.0] * 6)).tolist()
    expected = [x for one in given for x in slow_logp(policy, one)]
    exact = policy.parameters["model.norm.weight"].dtype == torch.float32
    # Sums in another order; bfloat16 has eight bits.
    assert packed == pytest.approx(expected, abs=1e-4 if exact else 0.06)


def test_float32_computes_with_and_publishes_bfloat16_weights(tiny_model: Path) -> None:
    base = digest(Policy(tiny_model).published())
    learner = Learner(Policy(tiny_model, compute="float32"), settings(tiny_model))
    assert digest(learner.policy.published()) == base
    learner.step([answer(n) for n in range(8)], lr=1e-3, objective="cispo")
    published = learner.policy.published()
    assert digest(published) != base
    for name, parameter in learner.policy.parameters.items():
        assert torch.equal(parameter, parameter.bfloat16().float()), name
    other = Policy(tiny_model, compute="float32")
    other.load(published)
    assert digest(other.published()) == digest(published)


def test_the_policy_s_gradient_is_autograd_s(policy: Policy) -> None:
    """Gradient of the published rounding, added up over micro-batches, in float32."""
    given = [answer(n) for n in range(6)]
    for batch in micro_batches(given, [1.0] * 6, micro_answers=2, micro_tokens=999):
        policy.logp(batch).sum().backward()
    name = "model.layers.0.mlp.up_proj.weight"
    found = policy.masters[name].grad
    model = policy._model.float()
    weight = dict(model.named_parameters())[name]
    total = torch.zeros_like(weight)
    for one in given:
        logits = model(input_ids=torch.tensor([one.prompt + one.tokens])).logits[0]
        logp = torch.log_softmax(logits, -1)
        rows = torch.arange(len(one.prompt) - 1, len(one.prompt) + len(one.tokens) - 1)
        total += torch.autograd.grad(logp[rows, torch.tensor(one.tokens)].sum(), weight)[0]
    assert torch.nn.functional.cosine_similarity(found.flatten(), total.flatten(), 0) > 0.999
    assert float((found - total).norm() / total.norm()) < 0.03


def settings(tiny_model: Path, **changes: object) -> Settings:
    base = Settings(model=MODEL, model_dir=tiny_model, lr=1e-3, micro_answers=4)
    return msgspec.structs.replace(base, **changes)


@pytest.mark.parametrize(
    ("objective", "compute"),
    [("cispo", "bfloat16"), ("ppo", "bfloat16"), ("reinforce", "bfloat16"), ("cispo", "float32")],
)
def test_two_runs_of_the_same_steps_are_bit_equal(
    tiny_model: Path, objective: str, compute: Literal["bfloat16", "float32"]
) -> None:
    digests = []
    for _ in range(2):
        learner = Learner(Policy(tiny_model, compute=compute), settings(tiny_model))
        for step in range(3):
            given = [answer(n) for n in range(step * 8, step * 8 + 8)]
            learner.step(given, lr=1e-3, objective=objective)
        digests.append(digest(learner.policy.published()))
    assert digests[0] == digests[1] != digest(Policy(tiny_model).published())


def test_what_was_liked_becomes_likelier(tiny_model: Path) -> None:
    learner = Learner(Policy(tiny_model), settings(tiny_model))
    given = [answer(n, reward=1.0 if n % 2 else -1.0) for n in range(8)]
    before = [sum(slow_logp(learner.policy, a)) for a in given]
    for _ in range(5):
        figures = learner.step(given, lr=1e-3, objective="cispo")
    after = [sum(slow_logp(learner.policy, a)) for a in given]
    moved = [a - b for a, b in zip(after, before, strict=True)]
    assert sum(moved[1::2]) > 0 > sum(moved[::2])
    assert figures["reward"] == 0.0 and figures["answers"] == 8
    assert 0 < figures["ess"] <= 1 and figures["mismatch_kl"] >= 0


def test_a_step_that_is_not_finite_changes_nothing(tiny_model: Path) -> None:
    learner = Learner(Policy(tiny_model), settings(tiny_model))
    good = [answer(n) for n in range(8)]
    learner.step(good, lr=1e-3, objective="cispo")
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    baselines = learner.baselines.state()
    with pytest.raises(NonFinite):
        learner.step([*good, answer(9, reward=math.inf)], lr=1e-3, objective="cispo")
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())
    assert learner.baselines.state() == baselines and learner.steps == 1
    assert all(float(g.abs().sum()) == 0.0 for g in learner.policy.gradients())


def test_state_goes_over_into_another_learner(tiny_model: Path) -> None:
    one, other = (Learner(Policy(tiny_model), settings(tiny_model)) for _ in range(2))
    given = [answer(n) for n in range(8)]
    one.step(given, lr=1e-3, objective="cispo")
    state = {name: tensor.clone() for name, tensor in one.state().items()}
    other.load_masters(state)
    other.load_moments(state, one.updates)
    other.baselines.load(one.baselines.state())
    other.steps = one.steps
    for learner in (one, other):
        learner.step(given, lr=1e-3, objective="cispo")
    assert digest(one.policy.published()) == digest(other.policy.published())


def test_a_difference_counts_alike_in_both_directions(tiny_model: Path) -> None:
    settled = settings(tiny_model, negative_weight=0.0)
    asked = [answer(0, reward=0.0, before=1.0), answer(1, reward=1.0, before=0.0)]
    learner = Learner(Policy(tiny_model), settled)
    assert learner._advantages([*asked, answer(2, reward=-9.0), answer(3, reward=9.0)]) == [
        *(-1.0, 1.0, 0.0, 9.0)
    ]
