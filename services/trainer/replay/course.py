"""Steps taken once more, under the conditions that each of them names.

Learning rate, seed, threads and each input's objective are the Step's own; what it does not name
(clipping, moments' decay, micro-batches, ``compute``) comes from the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import version as installed

import msgspec
import torch

from services.trainer.account import Place
from services.trainer.answer import Answer, as_trained
from services.trainer.learner import Learner, NonFinite
from services.trainer.replay.moments import Moments
from services.trainer.settings import Settings
from tailrace.events import Step


class Course:
    """The steps of one replay, in order. For one thread."""

    def __init__(
        self,
        learner: Learner,
        settings: Settings,
        inputs: Mapping[Place, Answer],
        moments: Moments,
        *,
        total: int,
        say: Callable[[str], None],
    ) -> None:
        self._learner, self._settings, self._inputs = learner, settings, inputs
        self._moments, self._total, self._say = moments, total, say
        self._done = 0

    def take(self, step: Step, without: Collection[Place] = ()) -> Step | str:
        """Take a step again without some of its inputs. Returns it as it was taken now; or why it
        was not, and all is as it was: ``empty``, nothing was left of it, or ``non_finite``.

        Raises NoReplay where nobody can know what it began from.
        """
        self._done += 1
        taken = self._take(step, without)
        what = taken if isinstance(taken, str) else f"{len(taken.inputs)} answers"
        where = f"step {step.step} of version {step.version}"
        self._say(f"{self._done}/{self._total}: {where}, {what}")
        return taken

    def passing(self, version: int) -> None:
        """All steps of a version are taken."""
        self._moments.passing(version)

    def _take(self, step: Step, without: Collection[Place]) -> Step | str:
        if step.reseeded:
            self._moments.reseed(step)
        kept = [i for i in step.inputs if (i.partition, i.offset) not in without]
        if not kept:
            return "empty"
        if step.threads is not None and step.threads != torch.get_num_threads():
            torch.set_num_threads(step.threads)
        given = [as_trained(self._inputs[i.partition, i.offset], i) for i in kept]
        lr = self._settings.lr if step.lr is None else step.lr
        self._learner.steps = step.step - 1
        try:
            figures = self._learner.step(given, lr=lr)
        except NonFinite:
            return "non_finite"
        return msgspec.structs.replace(
            step,
            inputs=kept,
            lr=lr,
            figures=figures,
            threads=torch.get_num_threads(),
            processes=1,
            code=installed("tailrace"),
            torch=str(torch.__version__),
        )


def seeded(settings: Settings, steps: Iterable[Step]) -> Settings:
    """The settings with the seed that the first of these Steps names: each adds its number."""
    first = next((step for step in steps if step.seed is not None), None)
    if first is None or first.seed is None:
        return settings
    return msgspec.structs.replace(settings, seed=first.seed - first.step)


def doubts(steps: Sequence[Step], settings: Settings) -> list[str]:
    """Why the same steps may end on other bits here."""
    here = {"code": installed("tailrace"), "torch": str(torch.__version__), "processes": 1}
    found = []
    for name, mine in here.items():
        others = [s for s in steps if getattr(s, name) not in (None, mine)]
        if others:
            theirs = sorted({str(getattr(s, name)) for s in others})
            found.append(
                f"{len(others)} of {len(steps)} steps were taken with {name} {', '.join(theirs)}, "
                f"here it is {mine}"
            )
    if torch.device(settings.device).type != "cpu":
        found.append(f"on {settings.device} the same steps need not end on the same bits")
    return found
