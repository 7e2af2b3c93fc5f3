"""Where a replay can begin: the state that a trainer had at or before a version.

A version's bfloat16 weights are on the log, its float32 masters and moments are not. Those are
whole in a checkpoint, and where they are nothing but the weights: at the beginning of the chain,
and where a trainer began with an optimizer reset. From the newest of these, Steps lead on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import tempfile
from typing import Literal

import msgspec
import torch

from services.trainer.checkpoint import Checkpoints, Meta
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger
from services.trainer.published import Published
from services.trainer.recovery import restore
from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Step
from tailrace.weights.tensors import digest


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One state that can be made."""

    version: int
    kind: Literal["checkpoint", "beginning", "reset", "asked"]
    """``reset``: the next step began with a new optimizer, and ``asked``: so does this replay."""
    meta: Meta | None = None
    """Of the checkpoint; None: the version's weights are all of it."""
    state: dict[str, torch.Tensor] = {}

    def give(self, learner: Learner, published: Published) -> None:
        """Put it into a learner. Raises UpdateRefused where weights cannot be read, ValueError
        where the state is not the model's."""
        if self.meta is None:
            learner.policy.load(published.at(self.version))
        else:
            learner.load_masters(self.state)
            if digest(learner.policy.published()) != self.meta.digest:
                raise ValueError(f"the checkpoint of version {self.version} rounds to another one")
        restore(learner, self.meta, self.state)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How to get to a version."""

    origins: list[Origin]
    """The newest first. Empty: there is none."""
    steps: dict[int, list[Step]]
    """All after the oldest of them, by version."""


def way(chain: Sequence[ModelUpdate], at: int, ledger: Ledger, folder: Path) -> Way:
    """The states at or before version ``at`` of a chain (oldest first), and the chain's Steps
    since. ``folder``: of the trainer's checkpoints."""
    newest = checkpoint(folder, [u for u in chain if u.version <= at])
    since = -1 if newest is None else newest.version
    steps = ledger.steps([u for u in chain if u.version > since])
    origins = [_reset(chain, steps, at, max(since, chain[0].version)), newest]
    if newest is None and chain[0].base_version is None:
        origins.append(Origin(version=chain[0].version, kind="beginning"))
    return Way(origins=[o for o in origins if o is not None], steps=steps)


def placed(way: Way, learner: Learner, published: Published) -> Origin:
    """The newest origin that can be put into a learner, when that is done. Raises ValueError that
    says what became of each."""
    wrong = []
    for origin in way.origins:
        try:
            origin.give(learner, published)
        except (UpdateRefused, ValueError) as error:
            wrong.append(f"version {origin.version} ({origin.kind}): {error}")
            continue
        return origin
    raise ValueError("; ".join(wrong) or "no checkpoint, and the log does not reach back to one")


def source(step: Step) -> int | None:
    """The version whose moments a reseeded step began with; 0 where it began with none. None: it
    does not say."""
    found = step.figures.get("reseeded_from")
    if found is not None:
        return int(found)
    return 0 if step.figures.get("optimizer_reset") == 1.0 else None


def saved(folder: Path, chain: Sequence[ModelUpdate]) -> list[int]:
    """Those of a chain of which there is a checkpoint in a folder, by the names alone."""
    names = {path.name for path in folder.glob("v*")}
    return [u.version for u in chain if f"v{u.version:08d}-{u.digest or '':.16}" in names]


def _reset(
    chain: Sequence[ModelUpdate], steps: Mapping[int, list[Step]], at: int, last: int
) -> Origin | None:
    """The newest version up to ``at`` after which a step began with a new optimizer."""
    found = None
    for update in chain:
        if update.version not in steps:
            continue
        first = steps[update.version][0]
        since = source(first) if first.reseeded else None
        if last <= at and since is not None and since <= chain[0].version:
            found = Origin(version=last, kind="reset")
        last = update.version
    return found


def checkpoint(folder: Path, chain: Sequence[ModelUpdate]) -> Origin | None:
    """The newest checkpoint in a folder of one of these versions."""
    with tempfile.TemporaryDirectory() as links:
        # A trainer may be writing there, and to open its folder is to sweep what it has begun.
        for path in folder.glob("v*"):
            (Path(links) / path.name).symlink_to(path.absolute())
        store = Checkpoints(Path(links), kept=1)
        try:
            found = store.newest((u.version, u.digest) for u in chain if u.digest is not None)
        finally:
            store.close()
    if found is None:
        return None
    meta, state = found
    return Origin(version=meta.version, kind="checkpoint", meta=meta, state=state)
