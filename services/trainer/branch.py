"""Where a trainer goes on: the chain of versions that it trains on, and what others beside it mean.

A rollback is a recovery with another head. :func:`branch` says from the lineage and the newest
release of mode ``follow`` which version to go on from, how old answers of any version are there
(:class:`Ages`), and which records the withdrawn versions had decided that are not to be decided
again (:class:`RolledBack`). All of it is a function of the log, so every restart comes to the same.
Versions that were left because nobody could make them any more were not withdrawn: what they had
decided is decided again, and their answers may be trained on, as after a rollback that retrains.
Pure. Called by :mod:`services.trainer.trainer`; asked by :mod:`services.trainer.intake`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Range, Release
from tailrace.weights.lineage import Lineage, label_only


class Ages:
    """How many weight changes ago each version was, along one chain."""

    def __init__(self) -> None:
        self._changes: dict[int, int] = {}
        """Version to the number of weight changes up to it."""
        self._newest = 0

    def version(self, number: int, changed: bool) -> None:
        """A version of the chain, in order: did it change weights."""
        self._newest += changed
        self._changes[number] = self._newest

    def beside(self, number: int, base: int | None, changed: bool) -> None:
        """A version that was left, after its base, whose answers may be trained on: as old as the
        way back to the chain is long, and from there to the newest."""
        if base in self._changes:
            self._changes[number] = self._changes[base] - changed

    def of(self, version: int) -> int | None:
        """None: a version of another branch, or of none."""
        change = self._changes.get(version)
        return None if change is None else self._newest - change


class RolledBack:
    """The records that withdrawn versions and those before them had decided."""

    def __init__(self) -> None:
        self._histories: list[dict[int, Range]] = []

    def add(self, ranges: Iterable[Range]) -> None:
        """Of one withdrawn version. What was ``held`` it had read and not decided."""
        self._histories.append({r.partition: r for r in ranges})

    def holds(self, partition: int, offset: int) -> bool:
        """Whether one of them had decided this record."""
        found = (history.get(partition) for history in self._histories)
        return any(r is not None and offset < r.end and offset not in r.held for r in found)

    def ends(self, ranges: Iterable[Range]) -> dict[int, int]:
        """Up to where there are such records, by partition; empty where a version with these
        ranges, and those before it, decided all of them."""
        ends: dict[int, int] = {}
        for history in self._histories:
            for partition, r in history.items():
                ends[partition] = max(r.end, ends.get(partition, 0))
        at = {r.partition: r for r in ranges}
        unread = any(p not in at or at[p].end < end for p, end in ends.items())
        held = any(self.holds(r.partition, offset) for r in at.values() for offset in r.held)
        return ends if unread or held else {}


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on."""

    chain: list[ModelUpdate]
    """From the oldest known base to the version to go on from; empty before the first version."""
    ages: Ages
    rolled_back: RolledBack
    floor: int = 0
    """The oldest version that may be gone on from where later ones cannot be made."""
    unsaid: int = 0
    """Versions that were left beside the chain since the newest of its own that has a Step."""
    skip_to: dict[int, int] | None = None
    """What was rolled back is to be accounted for up to here before anything is trained. None:
    there is nothing to skip, or versions of the branch did it."""


def branch(lineage: Lineage, release: Release | None, *, unreadable: int = 0) -> Branch:
    """Where a release (the newest of mode ``follow``) puts the trainer, if need be so many versions
    further back: those that nobody can make.

    Raises UpdateRefused (``gap``) where the release names a version that is not there.
    """
    line = lineage.line(release)
    if not line and lineage.head is not None:
        assert release is not None
        why = f"version {release.live} is not there, and a release says to go on from it"
        raise UpdateRefused("gap", why)
    chain = list(lineage.chain(line[-1].version))[::-1] if line else []
    chain = chain[: len(chain) - unreadable]
    ages, rolled_back = Ages(), RolledBack()
    for update in chain:
        ages.version(update.version, changed=not label_only(update))
    trained = {update.version for update in chain}
    stepped = max((u.version for u in chain if u.last_step is not None), default=0)
    unsaid = 0
    for update in line:
        if update.version not in trained:
            unsaid += bool(chain) and update.version > max(stepped, chain[0].version)
            ages.beside(update.version, update.base_version, changed=not label_only(update))
    withdrawn = lineage.withdrawn(release)
    bases = {update.base_version for update in withdrawn}
    for update in withdrawn:
        assert release is not None
        if release.data == "retrain":
            ages.beside(update.version, update.base_version, changed=not label_only(update))
        elif update.version not in bases:  # what its base had decided is in its history
            rolled_back.add(update.ranges)
    return Branch(
        chain=chain,
        ages=ages,
        rolled_back=rolled_back,
        floor=line[0].version if line else 0,
        unsaid=unsaid,
        skip_to=rolled_back.ends(chain[-1].ranges if chain else []) or None,
    )


def terms(release: Release | None) -> tuple[int | None, int | None, str | None] | None:
    """What a rollback says of where to go on and what becomes of the data."""
    return None if release is None else (release.live, release.withdrawn_to, release.data)
