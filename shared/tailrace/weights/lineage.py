"""The versions of one model and how they descend from each other. Pure; fed with manifests in log
order.

Publisher and subscriber hold one each. A version's base says where it comes from, by number and
digest; what names other weights under that number does not come from it. A rollback forks, and the
newest version of the log is the head, whichever branch it is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Counter

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Release

MANIFESTS_SKIPPED = Counter(
    "tailrace_weights_manifests_skipped", "Manifests that were not taken, by reason", ["reason"]
)
"""Counted by who feeds a lineage."""


def label_only(update: ModelUpdate) -> bool:
    """Whether a holder of the base has these weights already: zero steps, keyframe or not."""
    return update.base_digest is not None and update.digest == update.base_digest


class Lineage:
    """All manifests of one model that were seen."""

    def __init__(self) -> None:
        self.updates: dict[int, ModelUpdate] = {}
        """By version, in log order."""
        self.adapters: dict[int, ModelUpdate] = {}
        """By version, in log order. They lie on a version and lead to none: no chain has them."""
        self.head: ModelUpdate | None = None
        """The newest, adapters aside."""

    def add(self, update: ModelUpdate) -> bool:
        """Take the next manifest of the log; False for a version that is there already.

        Raises UpdateRefused (``base``) for one that names other weights than its base has. A base
        that is not known (yet) is for who holds it.
        """
        if update.version in self.updates or update.version in self.adapters:
            return False
        base = self.updates.get(-1 if update.base_version is None else update.base_version)
        if base is not None and not _descends(update, base):
            names = f"{update.base_digest!s:.12}, version {base.version} is {base.digest!s:.12}"
            raise UpdateRefused("base", f"version {update.version} is for {names}")
        if update.kind == "adapter":
            self.adapters[update.version] = update
            return True
        self.updates[update.version] = update
        self.head = update
        return True

    @property
    def next_version(self) -> int:
        """One more than any that was used, by an adapter too."""
        return max((*self.updates, *self.adapters), default=-1) + 1

    def chain(self, version: int) -> Iterator[ModelUpdate]:
        """A version and its bases, newest first, as far back as the log goes."""
        at = self.updates.get(version)
        while at is not None:
            yield at
            # A base is older than its version; anything else would be a circle.
            number = -1 if at.base_version is None else at.base_version
            base = self.updates.get(number) if number < at.version else None
            at = base if base is not None and _descends(at, base) else None

    def line(self, release: Release | None) -> list[ModelUpdate]:
        """The versions that a release leaves to be served, in log order.

        ``pin``: the one that it names. ``follow``: all; where the release names a version to go on
        from, that one and what descends from it without having been withdrawn. What is not known
        to be left to be served is not: where the named version is not there, a pin leaves nothing,
        and follow what was made from it since.
        """
        if release is not None and release.mode == "pin":
            return [self.updates[v] for v in (release.live,) if v in self.updates]
        if release is None or release.live is None:
            return list(self.updates.values())
        live = self.updates.get(release.live)
        found = {} if live is None else {live.version: live}
        for update in self.updates.values():
            base = found.get(-1 if update.base_version is None else update.base_version)
            after = live is None and update.base_version == release.live
            withdrawn = update.version <= (release.withdrawn_to or release.live)
            if not withdrawn and (after or (base is not None and _descends(update, base))):
                found[update.version] = update
        return list(found.values())

    def served(self, release: Release | None) -> ModelUpdate | None:
        """The version to serve, and to train on, under a release: the newest of its line.

        None where there is none (yet): who serves something stays with it.
        """
        line = self.line(release)
        return line[-1] if line else None

    def withdrawn(self, release: Release | None) -> list[ModelUpdate]:
        """The versions after the one to go on from that are not of a release's line."""
        live = None if release is None else release.live
        if live is None:
            return []
        line = {update.version for update in self.line(release)}
        return [u for u in self.updates.values() if u.version > live and u.version not in line]

    def paths(self, reach: Sequence[str], target: int | None = None) -> list[list[ModelUpdate]]:
        """The ways to ``target`` (None: the head), each in order, the fewest bytes first.

        ``reach`` are the digests of the weights that the receiver has without a download
        (:attr:`tailrace.weights.store.Store.reach`). A way is the updates after such weights, on
        whichever branch, or a keyframe and what follows it. Empty where there is no version yet.

        Raises UpdateRefused (``gap``) when no way exists.
        """
        if target is None:
            if self.head is None:
                return []
            target = self.head.version
        ways: list[list[ModelUpdate]] = []
        way: list[ModelUpdate] = []
        for update in self.chain(target):
            if update.digest in reach:
                ways.append(way[::-1] or [update])
                break
            way.append(update)
            if update.kind == "keyframe":
                ways.append(way[::-1])
                if not label_only(update):
                    break  # nobody gets here from its base, but by this keyframe itself
            elif update.base_digest in reach:  # the base's own manifest need not be known
                ways.append(way[::-1])
                break
        if not ways:
            raise UpdateRefused("gap", f"no way to version {target}")
        return sorted(ways, key=lambda each: _bytes(needed(each, reach)))


def _descends(update: ModelUpdate, base: ModelUpdate) -> bool:
    """Whether the base that an update names is this one, not only its number."""
    return (update.base_version, update.base_digest) == (base.version, base.digest)


def needed(way: Sequence[ModelUpdate], reach: Sequence[str]) -> list[ModelUpdate]:
    """The updates of a way whose bytes have to be fetched."""
    return [
        update
        for index, update in enumerate(way)
        if update.digest not in reach and (index == 0 or not label_only(update))
    ]


def _bytes(updates: Iterable[ModelUpdate]) -> int:
    return sum(update.bytes or 0 for update in updates)
