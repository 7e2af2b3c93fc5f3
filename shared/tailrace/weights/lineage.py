"""The versions of one model and how they descend from each other. Pure; fed with manifests in log
order.

Publisher and subscriber hold one each. A version's base says where it comes from; a rollback forks,
and the newest version of the log is the head, whichever branch it is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Release


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
        """Take the next manifest of the log; False for a version that is there already."""
        if update.version in self.updates or update.version in self.adapters:
            return False
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
        at: int | None = version
        while at is not None and at in self.updates:
            update = self.updates[at]
            yield update
            # A base is older than its version; anything else would be a circle.
            at = update.base_version if (update.base_version or 0) < update.version else None

    def line(self, release: Release | None) -> list[ModelUpdate]:
        """The versions that a release leaves to be served, in log order.

        ``pin``: the one that it names. ``follow``: all; where the release names a version to go on
        from, that one and what descends from it without having been withdrawn. A release that
        names a version that is not there counts as none.
        """
        live = None if release is None or release.live is None else self.updates.get(release.live)
        if release is None or live is None:
            return list(self.updates.values())
        if release.mode == "pin":
            return [live]
        found = {live.version: live}
        for update in self.updates.values():
            withdrawn = update.version <= (release.withdrawn_to or live.version)
            if update.base_version in found and not withdrawn:
                found[update.version] = update
        return list(found.values())

    def served(self, release: Release | None) -> ModelUpdate | None:
        """The version to serve, and to train on, under a release: the newest of its line.

        None before the first version.
        """
        line = self.line(release)
        return line[-1] if line else None

    def withdrawn(self, release: Release | None) -> list[ModelUpdate]:
        """The versions after the one to go on from that are not of a release's line."""
        live = None if release is None else release.live
        if live is None or live not in self.updates:
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


def needed(way: Sequence[ModelUpdate], reach: Sequence[str]) -> list[ModelUpdate]:
    """The updates of a way whose bytes have to be fetched."""
    return [
        update
        for index, update in enumerate(way)
        if update.digest not in reach and (index == 0 or not label_only(update))
    ]


def _bytes(updates: Iterable[ModelUpdate]) -> int:
    return sum(update.bytes or 0 for update in updates)
