"""The lag study samples from exactly the version it says, and says what it measured."""

from __future__ import annotations

from pathlib import Path
import random

import msgspec
import pytest
import torch

from benchmarks import lag
from benchmarks.kinds import BEGIN, KINDS, WORDS, Kinds
from benchmarks.sampler import Sample, Sampler
from benchmarks.stale import ROUTING, Crowd, Plan, Run, run
from services.trainer.batch import pack
from services.trainer.learner import Learner, deterministic
from services.trainer.policy import Policy
from services.trainer.settings import Settings

PLAN = Plan(
    task=Kinds.name, objective=ROUTING, lag=1, seed=3, steps=3, answers=8, lr=1e-3, measured=8
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    deterministic(1)
    return Kinds().write(tmp_path / "model", 0)


def test_logprobs_are_those_of_the_version_that_sampled(folder: Path) -> None:
    policy = Policy(folder, compute="float32")
    learner = Learner(policy, Settings(lr=1e-2))
    sampler = Sampler(folder)
    old = Crowd(Kinds(), sampler, PLAN).answers(32, version=0, newest=0)
    before = policy.published()
    learner.step(old, lr=1e-2, objective="reinforce")
    sampler.load(policy.published())
    new = Crowd(Kinds(), sampler, PLAN).answers(32, version=1, newest=1)
    sampler.load(before)
    again = Crowd(Kinds(), sampler, PLAN).answers(32, version=0, newest=1)
    assert [a.logprobs for a in again] == [a.logprobs for a in old]
    assert [a.age_versions for a in again] == [1] * 32
    with torch.no_grad():
        now, then = (policy.logp(pack(which, [0.0] * 32)) for which in (new, old))
    said, stale = (torch.tensor([x for a in which for x in a.logprobs]) for which in (new, old))
    torch.testing.assert_close(said, now, atol=1e-5, rtol=0.0)
    assert float((stale - then).abs().max()) > 1e-2


def test_a_sampler_stops_at_the_end_and_packs_prompts_of_any_length(folder: Path) -> None:
    policy = Policy(folder, compute="float32")
    prompts = [[BEGIN, *range(8), *range(n)] for n in (3, 1, 6, 2, 5, 4, 7, 3)]
    whole = Sampler(folder).sample(prompts, max_tokens=12, temperature=0.7, seed=1)
    assert all(len(s.tokens) == 12 and not s.finished for s in whole)
    end = whole[2].tokens[4]
    cut = Sampler(folder, end=end).sample(prompts, max_tokens=12, temperature=0.7, seed=1)
    assert any(s.finished for s in cut)
    for prompt, sample in zip(prompts, cut, strict=True):
        assert sample.finished == (sample.tokens[-1] == end)
        assert end not in sample.tokens[:-1]
        ids = torch.tensor([prompt + sample.tokens])
        with torch.no_grad():
            logits = policy._model(input_ids=ids).logits[0] / 0.7
        logp = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        alone = logp.gather(1, torch.tensor(sample.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(sample.logprobs), alone, atol=1e-5, rtol=0.0)


def test_the_same_plan_gives_the_same_run() -> None:
    first = run(PLAN, Kinds())
    assert run(PLAN, Kinds()) == first
    assert first.trained_share == 1.0
    assert msgspec.json.decode(msgspec.json.encode(first), type=Run) == first


def test_quality_is_the_share_of_words_asked_for() -> None:
    task, prompt = Kinds(), [BEGIN, 0, 0, WORDS + 2]
    kept = [2 + KINDS * place for place in range(6)]
    assert task.quality(prompt, Sample(kept, [], False)) == 1.0
    assert task.quality(prompt, Sample([*kept[:3], *([BEGIN] * 3)], [], False)) == 0.5
    chance = random.Random(0)
    assert task.prompt(chance)[-1] in range(WORDS, WORDS + KINDS)
    assert {task.reward(quality, chance) for quality in (0.0, 1.0)} == {0.0, 1.0}


def test_rows_say_what_is_kept_of_the_gain_at_lag_0() -> None:
    def of(lag_: int, seed: int, reward: float) -> Run:
        plan = msgspec.structs.replace(PLAN, lag=lag_, seed=seed)
        figures = {"curve": [], "trained_share": 1.0, "clip_fraction": 0.0, "ess": 1.0}
        return Run(plan=plan, base=0.2, reward=reward, **figures)

    fresh, old = lag.rows([of(0, 0, 0.9), of(0, 1, 1.0), of(16, 0, 0.8), of(16, 1, 0.8)])
    assert (fresh.lag, fresh.reward, fresh.kept) == (0, 0.95, 1.0)
    assert fresh.ci95 == pytest.approx(12.706 * 0.05, abs=1e-4)
    assert (old.kept, old.ci95, old.seeds) == (0.8, 0.0, 2)
    assert "| routing | 0.95 ± 0.64 | 0.80 ± 0.00 | 80% |" in lag.table([fresh, old])
    assert lag.picture([fresh, old], 3).count("<circle") == 2
    assert lag.interval([1.0]) is None
