"""One learner whose answers come from weights that are ``lag`` versions old.

    published weights ──> the last lag + 1 ──> sampler on the oldest ──> thumbs ──> learner
           └──────────────────────────────── one step, one version <──────────────────┘

Learner, policy, batches, objectives, baseline and routing are the trainer's; a version is what it
would publish. Before ``lag`` versions exist the first is the oldest. Log-probabilities of answers
are those of the weights that sampled them. The same plan gives the same run. Called by
:mod:`benchmarks.lag`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
import random
import statistics
import tempfile
from typing import Protocol

import msgspec

from benchmarks.sampler import Sample, Sampler
from services.trainer.answer import Answer, Refusal
from services.trainer.learner import Figures, Learner, deterministic
from services.trainer.policy import Policy
from services.trainer.routes import Divergence, Routes
from services.trainer.settings import Settings

ROUTING = "routing"
"""The arm that does what the trainer does by default."""


class Task(Protocol):
    """What is asked, and what pleases."""

    name: str
    end: int | None
    max_tokens: int
    temperature: float

    def write(self, folder: Path, seed: int) -> Path:
        """The model's folder at version 0."""
        ...

    def prompt(self, chance: random.Random) -> list[int]:
        """One prompt as token ids."""
        ...

    def quality(self, prompt: list[int], sample: Sample) -> float:
        """How good an answer is, from 0 to 1."""
        ...

    def reward(self, quality: float, chance: random.Random) -> float:
        """What is said of an answer of this quality."""
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What decides a run, all of it."""

    task: str
    objective: str
    lag: int
    """In versions."""
    seed: int
    steps: int
    answers: int
    """Of one step."""
    lr: float
    measured: int
    """Answers of one measurement of the newest weights."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    plan: Plan
    base: float
    """Mean quality of version 0's answers."""
    reward: float
    """Of the newest version's, over the last eighth of the steps."""
    curve: list[float]
    """Mean quality of the newest version's answers, before each sixteenth of the steps."""
    trained_share: float
    """Answers trained on, of those sampled."""
    clip_fraction: float
    """Tokens whose ratio was beyond its bound, mean over the steps."""
    ess: float
    """Effective sample size of a token, mean over the steps."""


def settings_of(plan: Plan) -> Settings:
    """The trainer's defaults, but for the plan and a staleness bound above the lag."""
    bound = max(Settings().max_age_versions, 2 * plan.lag)
    return Settings(
        lr=plan.lr, micro_answers=plan.answers, max_age_versions=bound, compute="float32"
    )


def run(plan: Plan, task: Task, *, threads: int = 1) -> Run:
    """Take the plan's steps."""
    deterministic(threads)
    settings = settings_of(plan)
    with tempfile.TemporaryDirectory() as where:
        folder = task.write(Path(where) / "model", plan.seed)
        policy = Policy(folder, compute="float32")
        sampler = Sampler(folder, end=task.end)
    crowd = Crowd(task, sampler, plan)
    learner = Learner(policy, settings)
    versions = deque([policy.published()], maxlen=plan.lag + 1)
    arm = Arm(plan, settings)
    trained, curve, last = 0, [], []
    figures: list[Figures] = []
    late = plan.steps - max(1, plan.steps // 8)
    for step in range(plan.steps):
        if step % max(1, plan.steps // 16) == 0:
            sampler.load(versions[-1])
            curve.append(crowd.measure())
        sampler.load(versions[0])
        answers = crowd.answers(plan.answers, version=max(0, step - plan.lag), newest=step)
        routed = [(a, arm.of(a, figures)) for a in answers]
        given = [(a, name) for a, name in routed if isinstance(name, str)]
        if given:
            taken, names = zip(*given, strict=True)
            figures.append(learner.step(taken, lr=plan.lr, objective=names))
        trained += len(given)
        versions.append(policy.published())
        if step >= late and (step - late) % max(1, plan.steps // 64) == 0:
            sampler.load(versions[-1])
            last.append(crowd.measure())
    return Run(
        plan=plan,
        base=curve[0],
        reward=statistics.fmean(last),
        curve=curve,
        trained_share=trained / (plan.steps * plan.answers),
        clip_fraction=statistics.fmean(f["clip_fraction"] for f in figures),
        ess=statistics.fmean(f["ess"] for f in figures),
    )


class Arm:
    """By which objective an answer is trained."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._only = None if plan.objective == ROUTING else plan.objective
        self._routes = Routes(settings)

    def of(self, answer: Answer, figures: Sequence[Figures]) -> str | Refusal:
        """The plan's one, or what the routing says after these steps."""
        if self._only is not None:
            return self._only
        last = figures[-1] if figures else {}
        return self._routes.of(answer, answer.age_versions, Divergence.of(last))


class Crowd:
    """Asks, reads the answers and presses thumbs."""

    def __init__(self, task: Task, sampler: Sampler, plan: Plan) -> None:
        self._task = task
        self._sampler = sampler
        self._plan = plan
        self._chance = random.Random(plan.seed)
        # Its own, so that what is asked in training does not depend on what is measured.
        self._measuring = random.Random(-1 - plan.seed)
        self._asked = 0

    def answers(self, count: int, *, version: int, newest: int) -> list[Answer]:
        """Of the sampler's weights, which are this version while there is a newer one, with a thumb
        each."""
        task, chance = self._task, self._chance
        made = []
        for prompt, sample in self._sampled(count, chance):
            reward = task.reward(task.quality(prompt, sample), chance)
            self._asked += 1
            made.append(
                Answer(
                    partition=0,
                    offset=self._asked,
                    time_ms=self._asked,
                    trajectory_id=str(self._asked),
                    session=str(self._asked),
                    prompt=prompt,
                    tokens=sample.tokens,
                    logprobs=sample.logprobs,
                    temperature=task.temperature,
                    reward=reward,
                    oldest_version=version,
                    age_versions=newest - version,
                    closed_ms=self._asked,
                )
            )
        return made

    def measure(self) -> float:
        """Mean quality of fresh answers of the sampler's weights."""
        found = self._sampled(self._plan.measured, self._measuring)
        return statistics.fmean(self._task.quality(*one) for one in found)

    def _sampled(self, count: int, chance: random.Random) -> list[tuple[list[int], Sample]]:
        prompts = [self._task.prompt(chance) for _ in range(count)]
        samples = self._sampler.sample(
            prompts,
            max_tokens=self._task.max_tokens,
            temperature=self._task.temperature,
            seed=chance.getrandbits(62),
        )
        return list(zip(prompts, samples, strict=True))
