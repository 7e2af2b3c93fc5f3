"""The versions of a replay after its first: trained, published, held against the originals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from services.trainer.account import Place
from services.trainer.canary import CanaryLine
from services.trainer.policy import Policy
from services.trainer.replay.course import Course
from services.trainer.replay.edition import Edition, Keyed, reworded
from tailrace.events import ModelUpdate, Step


class Rerun:
    """One after the other, along a chain. ``out``: inputs that are left out."""

    def __init__(
        self,
        edition: Edition,
        course: Course,
        policy: Policy,
        canary: CanaryLine,
        out: Collection[Place],
        *,
        wall_ms: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:
        self._edition, self._course = edition, course
        self._policy, self._canary = policy, canary
        self._out, self._wall_ms, self._say = out, wall_ms, say
        self.taken = 0
        """Steps."""
        self.skipped: dict[str, int] = {}
        """Steps that were not taken, by reason."""
        self.first_difference: int | None = None
        self.warnings: list[str] = []
        self._left_out = False

    def version(
        self, original: ModelUpdate, steps: Sequence[Step], receipts: Mapping[int, list[Keyed]]
    ) -> None:
        """One version. Raises NoReplay, LogError."""
        taken: list[Step] = []
        why: dict[str, set[Place]] = {"left_out": set(), "non_finite": set()}
        for step in steps:
            places = {(i.partition, i.offset) for i in step.inputs}
            why["left_out"] |= places & {*self._out}
            again = self._course.take(step, self._out)
            if isinstance(again, Step):
                taken.append(again)
                continue
            self.skipped[again] = self.skipped.get(again, 0) + 1
            if again == "non_finite":
                why[again] |= places - {*self._out}
        self.taken += len(taken)
        self._course.passing(original.version)
        made = self._edition.add(
            original,
            taken,
            reworded(receipts[original.version], why, now_ms=self._wall_ms()),
            self._policy,
            self._canary,
            now_ms=self._wall_ms(),
        )
        self._left_out = self._left_out or bool(why["left_out"])
        self._compare(original, made)

    def _compare(self, original: ModelUpdate, made: ModelUpdate) -> None:
        equal = made.digest == original.digest
        self._say(f"version {original.version}: digest " + ("equal" if equal else "not equal"))
        if equal or self.first_difference is not None:
            return
        self.first_difference = original.version
        if self._out and not self._left_out:
            self.warnings.append(
                f"version {original.version} differs before anything was left out: the difference "
                "is not only that of the answers"
            )
            self._say(f"warning: {self.warnings[-1]}")
