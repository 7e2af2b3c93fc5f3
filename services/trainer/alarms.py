"""Alarms about training itself, for the topic ``alarms``, from the figures of its steps.

    non_finite        a step was skipped: its loss or gradient was no number; cleared by the next
                      that was not
    no_signal         no answer of the last ``alarm_steps`` steps taught anything
    entropy_collapse  the entropy of what is sampled is below ``entropy_floor``
    mismatch_growth   the mismatch between sampling and training weights is ``mismatch_growth``
                      times its own long mean; cleared when it has fallen, or is the mean by now

All but the first fire when so many steps in a row say so and clear when as many say otherwise. What
an alarm of the process before said is not known after a restart: the first verdict is always given.
Pure. Called by :mod:`services.trainer.report`.
"""

from __future__ import annotations

import msgspec

from services.trainer.figures import Figures
from services.trainer.settings import Settings
from tailrace.events import Alarm

_DECAY = 0.98
"""Weight of the past in the long mean, per step."""
_LEAST_MISMATCH = 0.01
"""Nats per token; below it growth is that of roundings."""


class Watch(msgspec.Struct):
    """One condition, step by step.

    >>> watch = Watch(steps=2)
    >>> [watch.see(bad) for bad in (True, True, True, False, False, False)]
    [None, 'fired', None, None, 'cleared', None]
    """

    steps: int
    """In a row that make a verdict."""
    state: str | None = None
    """The last verdict: ``fired`` or ``cleared``."""
    run: int = 0
    """Steps in a row that say ``bad``."""
    bad: bool = False

    def see(self, bad: bool) -> str | None:
        """Take one step. Returns the verdict when it is a new one."""
        self.run = self.run + 1 if bad == self.bad else 1
        self.bad = bad
        verdict = "fired" if bad else "cleared"
        if self.run < self.steps or verdict == self.state:
            return None
        self.state = verdict
        return verdict


class Alarms:
    """The alarms of one trainer."""

    def __init__(self, settings: Settings) -> None:
        self._floor, self._growth = settings.entropy_floor, settings.mismatch_growth
        names = ("no_signal", "entropy_collapse", "mismatch_growth")
        self._watches = {name: Watch(steps=settings.alarm_steps) for name in names}
        self._mismatch: float | None = None
        """Its long mean."""
        self._skipped = False
        self._seen = 0

    def skipped(self, step: int, error: str, *, now_ms: int) -> list[Alarm]:
        """A step was not taken."""
        self._skipped = True
        return [self._alarm("non_finite", "fired", f"step {step}: {error}", now_ms=now_ms)]

    def stepped(self, step: int, figures: Figures, *, now_ms: int) -> list[Alarm]:
        """A step was taken, with these figures. Returns what is to be said of it."""
        self._seen += 1
        found = []
        if self._skipped:
            self._skipped = False
            why = f"step {step} is finite"
            found.append(self._alarm("non_finite", "cleared", why, now_ms=now_ms))
        for name, value, bound, bad in self._values(figures):
            verdict = self._watches[name].see(bad)
            if verdict is not None:
                why = f"step {step}: {value:.4g}, the bound is {bound:.4g}"
                alarm = self._alarm(name, verdict, why, now_ms=now_ms)
                found.append(msgspec.structs.replace(alarm, value=value, baseline=bound))
        return found

    def _values(self, figures: Figures) -> list[tuple[str, float, float, bool]]:
        """(alarm, value, bound, whether it is beyond) of what this step has."""
        found = [("no_signal", figures["effective"], 1.0, figures["effective"] < 1.0)]
        entropy, mismatch = figures.get("entropy"), figures.get("mismatch_kl")
        if entropy is not None:
            found.append(("entropy_collapse", entropy, self._floor, entropy < self._floor))
        if mismatch is not None:
            mean = mismatch if self._mismatch is None else self._mismatch
            bound = max(_LEAST_MISMATCH, self._growth * mean)
            found.append(("mismatch_growth", mismatch, bound, mismatch > bound))
            self._mismatch = mean + (1.0 - _DECAY) * (mismatch - mean)
        return found

    def _alarm(self, name: str, state: str, message: str, *, now_ms: int) -> Alarm:
        return Alarm(
            stream=f"trainer.{name}",
            event_time_ms=now_ms,
            detector=name,
            state=state,
            seen=self._seen,
            message=message,
        )
