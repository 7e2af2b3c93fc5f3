"""Answers of several objectives in one step: each gets its own, whatever the micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import torch
from torch import Tensor

from services.trainer.answer import Answer, as_trained
from services.trainer.batch import pack
from services.trainer.learner import Learner
from services.trainer.objectives.names import Normalisation, Objective
from services.trainer.policy import Policy
from services.trainer.records import step_of
from services.trainer.rounding import rounded
from services.trainer.settings import Settings
from tailrace.weights.tensors import digest
from tests.trainer.test_learner import answer
from tests.trainer.traffic import MODEL

NAMES = ["cispo", "dpo", "kto", "sft", "dpo", "gspo", "kto", "decoupled", "tis_sequence", "icepop"]
NAMES += ["ppo", "tis", "reinforce"]
"""Of thirteen answers, every objective; those of dpo are a pair."""


def learner_of(folder: Path, **changes: object) -> Learner:
    base = Settings(model=MODEL, model_dir=folder, lr=1e-3, micro_answers=4)
    settings = msgspec.structs.replace(base, **changes)
    return Learner(Policy(folder, compute="float32"), settings)


def answers(count: int = len(NAMES)) -> list[Answer]:
    return [answer(n, age_versions=n % 5, reward=float(n % 3)) for n in range(count)]


def gradient(learner: Learner, *args: Any, **known: Any) -> dict[str, Tensor]:
    """Of one first step, from its first moments: not scaled down."""
    learner.step(*args, lr=1e-3, **known)
    state = learner.state()
    return {n.removeprefix("first."): t * 10.0 for n, t in state.items() if n.startswith("first.")}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference by the norm."""
    square = sum(float((one[name] - other[name]).square().sum()) for name in one)
    return (square / sum(float(t.square().sum()) for t in one.values())) ** 0.5


def slow_loss(learner: Learner, given: Sequence[Answer], names: Sequence[str]) -> Tensor:
    """The step's loss, answer by answer, written down again."""
    count, rewards = len(given), [a.reward for a in given]
    rated = [r for r, n in zip(rewards, names, strict=True) if n not in ("dpo", "sft")]
    mean = sum(rated) / len(rated)
    logps = [learner.policy.logp(pack([a], [0.0])) for a in given]
    behaviours = [torch.tensor(a.logprobs) for a in given]
    moved = [(one - other).sum() for one, other in zip(logps, behaviours, strict=True)]
    kls = []
    for logp_T, behaviour_T, name in zip(logps, behaviours, names, strict=True):
        if name == "kto":
            ratio_T = (logp_T - behaviour_T).exp().detach()
            kls.append(float((ratio_T * ratio_T.log() - ratio_T + 1.0).sum()))
    total = torch.zeros(())
    pair = [i for i, name in enumerate(names) if name == "dpo"]
    for i, name in enumerate(names):
        logp_T, advantage, size = logps[i], rewards[i] - mean, len(given[i].tokens)
        ratio_T = (logp_T - behaviours[i]).exp()
        if name in ("cispo", "tis"):
            most = 3.0 if name == "cispo" else 2.0
            loss = -(ratio_T.detach().clamp(max=most) * advantage * logp_T).sum() / size
        elif name == "reinforce":
            loss = -(advantage * logp_T).sum() / size
        elif name == "ppo":
            gain_T = torch.minimum(ratio_T * advantage, ratio_T.clamp(0.8, 1.28) * advantage)
            loss = -(gain_T.clamp(min=3.0 * advantage) if advantage < 0 else gain_T).sum() / size
        elif name == "icepop":
            inside_T = (ratio_T >= 0.5) & (ratio_T <= 5.0)
            loss = -(ratio_T.detach() * inside_T * advantage * logp_T).sum() / size
        elif name == "tis_sequence":
            loss = -(moved[i].exp().detach().clamp(max=2.0) * advantage * logp_T).sum() / size
        elif name == "gspo":
            mean_ratio = (moved[i] / size).exp()
            loss = -torch.minimum(
                mean_ratio * advantage, mean_ratio.clamp(1 - 3e-4, 1 + 4e-4) * advantage
            )
        elif name == "decoupled":
            age = max(1, given[i].age_versions or 0)
            weight_T = (ratio_T.log() * (age - 1) / age).exp().detach()
            step_T = ratio_T / weight_T
            bound_T = step_T.clamp(0.8, 1.28) * advantage
            gain_T = torch.minimum(step_T * advantage, bound_T) * (weight_T <= 5.0)
            loss = -(weight_T * gain_T).sum() / size
        elif name == "kto":
            sign = 1.0 if advantage > 0 else -1.0
            loss = 1.0 - torch.sigmoid(0.1 * sign * (moved[i] - sum(kls) / len(kls)))
            loss = loss * abs(advantage)
        elif name == "sft":
            loss = -logp_T.sum() / size
        else:
            margin = moved[pair[0]] - moved[pair[1]]
            loss = -torch.nn.functional.logsigmoid(0.1 * margin)  # for each of the two
        total = total + loss / count
    return total


def test_a_step_of_many_objectives_is_the_sum_of_their_losses(tiny_model: Path) -> None:
    given = answers()
    big = {"max_grad_norm": 1e9, "normalisation": "sequence"}
    learner = learner_of(tiny_model, **big)
    slow = slow_loss(learner, given, NAMES)
    slow.backward()
    expected = {n: m.grad.clone() for n, m in learner.policy.masters.items()}  # type: ignore[union-attr]
    learner.policy.clear()
    figures = learner.step(given, lr=1e-3, objective=NAMES)
    assert figures["loss"] == pytest.approx(float(slow.detach()), rel=1e-4)
    state = learner.state()
    found = {n: state[f"first.{n}"] * 10.0 for n in expected}
    assert apart(expected, found) < 1e-3
    counts = {name: figures[f"objective_{name}"] for name in get_args(Objective)}
    assert counts == {name: float(NAMES.count(name)) for name in get_args(Objective)}


@pytest.mark.parametrize("normalisation", get_args(Normalisation))
def test_micro_batches_add_up(tiny_model: Path, normalisation: str) -> None:
    found = [
        gradient(
            learner_of(
                tiny_model,
                micro_answers=size,
                normalisation=normalisation,
                kl_coefficient=0.1,
                max_grad_norm=1e9,
            ),
            answers(),
            objective=NAMES,
        )
        for size in (1, 3, 10)
    ]
    assert apart(found[0], found[1]) < 1e-3 and apart(found[0], found[2]) < 1e-3


def test_an_answer_s_own_objective_is_what_it_is_trained_by(tiny_model: Path) -> None:
    digests = []
    given = answers()
    owned = [msgspec.structs.replace(a, objective=n) for a, n in zip(given, NAMES, strict=True)]
    for known, names in ((given, NAMES), (owned, None), (given, "cispo"), (given, None)):
        learner = learner_of(tiny_model)
        learner.step(known, lr=1e-3, objective=names)
        digests.append(digest(learner.policy.published()))
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_a_step_is_taken_again_from_its_record_to_the_same_bits(tiny_model: Path) -> None:
    digests = []
    read = [answer(n) for n in range(len(NAMES))]  # as the log has them
    routed = [
        msgspec.structs.replace(a, objective=name, age_versions=n % 5, reward=float(n % 3))
        for n, (a, name) in enumerate(zip(read, NAMES, strict=True))
    ]
    learner = learner_of(tiny_model, kl_coefficient=0.1)
    figures = learner.step(routed, lr=1e-3)
    digests.append(digest(learner.policy.published()))
    known = {"number": 1, "version": 1, "reseeded": False, "now_ms": 0}
    step = step_of(learner._settings, routed, figures, **known)
    assert [i.objective for i in step.inputs] == NAMES
    for given in (read, [*reversed(read)]):
        again = [as_trained(a, i) for a, i in zip(given, step.inputs, strict=True)]
        learner = learner_of(tiny_model, kl_coefficient=0.1)
        learner.step(again, lr=1e-3)
        digests.append(digest(learner.policy.published()))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", get_args(Objective))
def test_what_was_liked_becomes_likelier_by_every_objective(tiny_model: Path, name: str) -> None:
    learner = learner_of(tiny_model)
    with torch.no_grad():  # as if these weights had sampled them
        given = [answer(n, reward=1.0 - 2.0 * (n % 2), age_versions=3) for n in range(8)]
        given = [
            msgspec.structs.replace(a, logprobs=learner.policy.logp(pack([a], [0.0])).tolist())
            for a in given
        ]

    def liked() -> float:
        with torch.no_grad():
            logps = [float(learner.policy.logp(pack([a], [0.0])).sum()) for a in given]
        return sum(logps[::2]) - (0.0 if name == "sft" else sum(logps[1::2]))

    before = liked()
    for _ in range(2):
        figures = learner.step(given, lr=1e-3, objective=name)
    assert liked() > before
    assert figures["effective"] == 8.0 and figures["no_signal"] == 0.0


def test_a_rejected_answer_without_a_chosen_one_is_refused(tiny_model: Path) -> None:
    learner = learner_of(tiny_model)
    with pytest.raises(ValueError, match="3 answers of dpo"):
        learner.step(answers(3), lr=1e-3, objective="dpo")
    with pytest.raises(ValueError, match="unknown objective 'grpo'"):
        learner.step(answers(3), lr=1e-3, objective="grpo")
    assert learner.steps == 0


@pytest.mark.parametrize("count", [1, 6])
def test_without_a_signal_nothing_moves_and_it_is_said(tiny_model: Path, count: int) -> None:
    learner = learner_of(tiny_model)
    learner.step(answers(8), lr=1e-3)
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    learner.baselines.load({})
    alike = [answer(n, reward=0.7) for n in range(count)]
    figures = learner.step(alike, lr=1e-3)
    assert figures["no_signal"] == 1.0 and figures["effective"] == figures["grad_norm"] == 0.0
    after = learner.state()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert learner.steps == 2 and learner.updates == 1
    assert learner.baselines.state()["means"] == [["", pytest.approx(0.7), count]]
    # A pull to version 0 is none of the answers' signal, but it is a gradient.
    figures = learner_of(tiny_model, kl_coefficient=1.0).step(alike, lr=1e-3)
    assert figures["no_signal"] == 1.0 and figures["grad_norm"] >= 0.0


def test_the_anchor_holds_the_policy_near_version_0(tiny_model: Path) -> None:
    found = {}
    for coefficient in (1e-9, 3.0):
        learner = learner_of(tiny_model, kl_coefficient=coefficient)
        figures = [learner.step(answers(8), lr=1e-3) for _ in range(6)]
        assert figures[0]["kl_base"] == pytest.approx(0.0, abs=1e-6) and figures[0]["loss"]
        found[coefficient] = figures[-1]["kl_base"]
        for name, parameter in learner.policy.parameters.items():
            whole = rounded(learner.policy.masters[name]).float()
            assert torch.equal(parameter, whole), name
    assert 0.0 < found[3.0] < 0.5 * found[1e-9]
    assert "kl_base" not in learner_of(tiny_model).step(answers(8), lr=1e-3)
