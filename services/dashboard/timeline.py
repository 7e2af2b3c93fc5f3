"""Versions as a timeline, and the steps that made them. Pure.

In: manifests, releases and steps, whole topics from their beginning, and acks. Out: the sections
``versions`` and ``training``. Who descends from whom is
:class:`tailrace.weights.lineage.Lineage`'s matter, as for engines and trainer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import msgspec

from services.dashboard.bounded import OTHER, Memory, Names
from services.dashboard.intervals import rounded
from services.dashboard.learning import Applied, StepPoint, Training, Version, Versions
from services.dashboard.settings import Settings
from tailrace import versions
from tailrace.errors import UpdateRefused
from tailrace.events import (
    Feedback,
    ModelAck,
    ModelUpdate,
    Release,
    Step,
    Trajectory,
    VersionSpan,
)
from tailrace.weights.lineage import Lineage, label_only

_ENGINES = 32
"""Engines that are listed, of one version and of all: those that were heard last."""
_HOUR_MS = 3_600_000
"""An engine that was not heard for so long serves nothing any more."""
_OBJECTIVES = 20
"""That are counted apart."""
_SOURCES = ("user", "grader", "implicit")
_FIGURES = {
    "reward": "reward",
    "ess": "ess",
    "mismatch_kl": "mismatch_kl",
    "kl_base": "kl_base",
    "entropy": "entropy",
    "length_tokens": "length_tokens",
    "staleness": "lag_mean",
    "staleness_max": "lag_max",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "clip_fraction": "clip_fraction",
    "step_s": "step_s",
    "tokens_per_s": "tokens_per_s",
    "idle_share": "idle_share",
    "answers": "answers",
}
"""Field of StepPoint: figure of the Step."""


class _Made(msgspec.Struct):
    """What went into a version."""

    steps: int = 0
    objectives: Counter[str] = msgspec.field(default_factory=Counter)
    sources: Counter[str] = msgspec.field(default_factory=Counter)


class Timeline:
    """Feed it, then ask for :meth:`section` and :meth:`training`."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self.dirty = self.stepped = True
        self._model = settings.model
        self._objectives = Names(_OBJECTIVES)
        self._shown, self._kept = settings.versions_shown, settings.versions_known
        self._drops = drops
        self._lineage = Lineage()
        self._times: dict[int, int] = {}
        self._published = 0
        self._newest: Release | None = None
        self._followed: Release | None = None
        room = 4 * settings.versions_shown
        self._made: Memory[int, _Made] = Memory(room, drops, "steps of an older version forgotten")
        self._applied: Memory[int, dict[str, Applied]] = Memory(
            room, drops, "acks of an older version forgotten"
        )
        self._sampled: Memory[int, int] = Memory(
            room, drops, "answers of an older version forgotten"
        )
        self._serving: Memory[str, tuple[int, int]] = Memory(
            _ENGINES, drops, "engine beyond those that are listed"
        )
        """Version and when it said so last, by engine, the one heard last at the end."""
        self.behind: dict[str, int] = {}
        """By engine: versions after the one that it serves, when the section was made last."""
        self._points: deque[StepPoint] = deque(maxlen=settings.steps_shown)
        self._steps = self._answers = 0
        self._said: Memory[str, tuple[str, ...]] = Memory(
            settings.remembered, drops, "trajectory forgotten: who spoke of it is unknown"
        )
        """Feedback ids by trajectory."""
        self._sources: Memory[str, str] = Memory(
            settings.remembered, drops, "feedback forgotten: whose it was is unknown"
        )
        """By feedback id."""

    def update(self, event: ModelUpdate, time_ms: int) -> bool:
        """A manifest. Whether it is news of this model."""
        if event.model != self._model:
            return False
        # What is held and what the canary says is long, and of no use to who descends from whom.
        slim = msgspec.structs.replace(event, canary=None, chunks=None, ranges=[])
        try:
            if not self._lineage.add(slim):
                return False
        except UpdateRefused as error:
            self._drops[f"manifest that engines refuse: {error.reason}"] += 1
            return False
        self.dirty = True
        self._published += 1
        self._times[event.version] = time_ms
        for kept in (self._lineage.updates, self._lineage.adapters):
            if len(kept) > self._kept:
                gone = next(iter(kept))
                self._lineage.forget(gone)
                self._times.pop(gone, None)
                self._drops["version older than those that are known"] += 1
        return True

    def release(self, event: Release) -> None:
        """A release."""
        if event.model != self._model:
            return
        self.dirty = True
        self._newest = event
        if event.mode != "pin":
            self._followed = event

    def withdrawn(self) -> list[int]:
        """Versions that are rolled back, with what descends from them."""
        return [update.version for update in self._lineage.withdrawn(self._followed)]

    def trajectory(self, event: Trajectory) -> None:
        """What a step may be given."""
        self._said.put(event.trajectory_id, tuple(event.feedback_ids))

    def feedback(self, event: Feedback) -> None:
        """Who spoke."""
        self._sources.put(event.feedback_id, event.source if event.source in _SOURCES else OTHER)

    def step(self, event: Step) -> None:
        """A ledger entry."""
        if event.model != self._model:
            return
        self.dirty = self.stepped = True
        self._steps += 1
        self._answers += len(event.inputs)
        made = self._made.get(event.version)
        if made is None:
            made = _Made()
            self._made.put(event.version, made)
        made.steps += 1
        for one in event.inputs:
            made.objectives[self._objectives.of(one.objective or "unknown")] += 1
            said = self._said.get(one.trajectory_id)
            found = (None,) if said is None else map(self._sources.get, said)
            made.sources[source_of(found)] += 1
        figures = {field: event.figures.get(name) for field, name in _FIGURES.items()}
        self._points.append(
            StepPoint(
                step=event.step,
                version=event.version,
                time_ms=event.event_time_ms,
                **{field: rounded(value) for field, value in figures.items()},
            )
        )

    def ack(self, event: ModelAck, time_ms: int) -> None:
        """What an engine said of a version."""
        if event.model not in (None, self._model):
            return
        if event.state in ("applied", "serving"):
            before = self._serving.get(event.engine)
            self.dirty |= before is None or before[0] != event.version
            self._serving.put(event.engine, (event.version, time_ms))
        engines = self._applied.get(event.version)
        if engines is None:
            engines = {}
            self._applied.put(event.version, engines)
        known = engines.get(event.engine)
        # It repeats twice a minute what it serves; what it did with the version it says once.
        if known is None or event.state != "serving":
            self.dirty = True
            if known is None and len(engines) >= _ENGINES:
                del engines[min(engines, key=lambda name: engines[name].time_ms)]
                self._drops["engine beyond those that are listed for a version"] += 1
            engines[event.engine] = Applied(
                engine=event.engine,
                state=event.state,
                time_ms=time_ms,
                pause_ms=rounded(event.pause_ms),
                apply_ms=rounded(event.apply_ms),
                reason=event.reason,
            )

    def output(self, spans: Iterable[VersionSpan]) -> None:
        """An answer, by the versions that sampled it."""
        for version in {span.version for span in spans if span.version is not None}:
            if version in self._sampled:
                self._sampled[version] += 1
            elif version in self._times:
                self._sampled.put(version, 1)
            else:
                self._drops["answer of a version that is not known"] += 1

    def section(self, now_ms: int) -> Versions:
        """The timeline as it is now; ``now_ms`` by the dashboard's clock."""
        self.dirty = False
        lineage = self._lineage
        served, trained = lineage.served(self._newest), lineage.served(self._followed)
        withdrawn = set(self.withdrawn())
        known = lineage.updates | lineage.adapters
        shown = sorted(known)[-self._shown :]
        line = [update.version for update in lineage.line(self._newest)]
        serving = {
            engine: version
            for engine, (version, time_ms) in sorted(self._serving.items())
            if now_ms - time_ms <= _HOUR_MS
        }
        self.behind = {
            engine: sum(version < v for v in line) for engine, version in serving.items()
        }
        standing = [v for v in lineage.updates if v not in withdrawn]
        return Versions(
            published=self._published,
            head=standing[-1] if standing else None,
            served=None if served is None else served.version,
            trained=None if trained is None else trained.version,
            release=versions.release_in_words(self._newest),
            timeline=[
                self._row(known[version], self._base(known[version]) in withdrawn, serving)
                for version in shown
            ],
        )

    def _base(self, update: ModelUpdate) -> int | None:
        return update.base_version if update.kind == "adapter" else update.version

    def _row(self, update: ModelUpdate, withdrawn: bool, serving: dict[str, int]) -> Version:
        version = update.version
        made = self._made.get(version) or _Made()
        label = label_only(update) and update.bytes is None
        return Version(
            version=version,
            base=update.base_version,
            kind="label" if label else update.kind or "",
            bytes=update.bytes,
            time_ms=self._times.get(version, update.created_ms),
            steps=made.steps,
            answers=made.objectives.total(),
            objectives=dict(sorted(made.objectives.items())),
            sources=dict(sorted(made.sources.items())),
            engines=list(self._applied.get(version, {}).values()),
            serving=[engine for engine, v in serving.items() if v == version],
            withdrawn=withdrawn,
            sampled=self._sampled.get(version, 0),
            figures={
                name: number
                for name, value in sorted(update.figures.items())[:_ENGINES]
                if (number := rounded(value)) is not None
            },
        )

    def training(self) -> Training:
        """The curves as they are now."""
        self.stepped = False
        return Training(steps=self._steps, answers=self._answers, points=list(self._points))


def source_of(sources: Iterable[str | None]) -> str:
    """Who spoke, of the sources of all feedback in a trajectory (None: not read).

    >>> source_of([]), source_of(["user", "user"]), source_of(["user", "grader"])
    ('verifier', 'user', 'several')
    """
    found = set(sources)
    if not found:
        return "verifier"
    if None in found:
        return "unknown"
    return str(found.pop()) if len(found) == 1 else "several"
