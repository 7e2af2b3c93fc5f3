"""The versions of one model and how they descend from each other. Pure; fed with manifests in log
order.

Publisher and subscriber hold one each. A version's base says where it comes from; a rollback forks,
and the newest version of the log is the head, whichever branch it is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Release

KEPT_KEYFRAMES = 3
"""How many keyframes of a model, the newest, stay on ``model-chunks`` with all that follows."""


def label_only(update: ModelUpdate) -> bool:
    """Whether a holder of the base has these weights already: zero steps, keyframe or not."""
    return update.base_digest is not None and update.digest == update.base_digest


class Lineage:
    """All manifests of one model that were seen."""

    def __init__(self) -> None:
        self.updates: dict[int, ModelUpdate] = {}
        """By version, in log order."""
        self.head: ModelUpdate | None = None
        """The newest."""

    def add(self, update: ModelUpdate) -> bool:
        """Take the next manifest of the log; False for a version that is there already."""
        if update.version in self.updates:
            return False
        self.updates[update.version] = update
        self.head = update
        return True

    def chain(self, version: int) -> Iterator[ModelUpdate]:
        """A version and its bases, newest first, as far back as the log goes."""
        at: int | None = version
        while at is not None and at in self.updates:
            update = self.updates[at]
            yield update
            # A base is older than its version; anything else would be a circle.
            at = update.base_version if (update.base_version or 0) < update.version else None

    def served(self, release: Release | None) -> ModelUpdate | None:
        """The version to serve, and to train on, under the newest release of the model.

        None before the first version. ``pin``: the one that it names. ``follow``: the newest; where
        the release names a version to go on from, the newest of its line that was not withdrawn,
        else itself. A release that names a version that is not there counts as none.
        """
        live = None if release is None or release.live is None else self.updates.get(release.live)
        if release is None or live is None:
            return self.head
        if release.mode == "pin":
            return live
        line, newest = {live.version}, live
        for update in self.updates.values():
            withdrawn = update.version <= (release.withdrawn_to or live.version)
            if update.base_version in line and not withdrawn:
                line.add(update.version)
                newest = update
        return newest

    def path(self, have_version: int | None, target: int | None = None) -> list[ModelUpdate]:
        """The cheapest updates, in order, from ``have_version`` to ``target`` (None: the head).

        Either everything since ``have_version``, or the last keyframe and what follows it,
        whichever is fewer bytes. Empty when there is nothing to do or no version yet.

        Raises UpdateRefused (``gap``) when neither way exists.
        """
        if target is None:
            if self.head is None:
                return []
            target = self.head.version
        if have_version == target:
            return []
        since: list[ModelUpdate] = []
        from_keyframe: list[ModelUpdate] | None = None
        for update in self.chain(target):
            if update.version == have_version:
                break
            since.append(update)
            if from_keyframe is None and update.kind == "keyframe":
                from_keyframe = since[::-1]
            if update.kind == "keyframe" and not label_only(update):
                # A holder of the base could not go through here but by this keyframe itself.
                return from_keyframe or []
        else:
            if from_keyframe is None:
                raise UpdateRefused("gap", f"no way from version {have_version} to {target}")
            return from_keyframe
        since.reverse()
        if from_keyframe is not None and _bytes(from_keyframe, full=True) < _bytes(since):
            return from_keyframe
        return since


def first_needed_offset(
    manifests: Iterable[ModelUpdate], served: Mapping[str, Iterable[int]]
) -> int | None:
    """The first offset of ``model-chunks`` that some model still needs; None while nothing may go.

    For each model that is its third-newest keyframe, or the keyframe of a version in ``served``
    (live, candidate or pinned by a Release) when that is older.
    """
    keyframes: dict[str, dict[int, int]] = {}
    updates: dict[tuple[str, int], ModelUpdate] = {}
    for update in manifests:
        if (update.model, update.version) in updates:
            continue
        updates[update.model, update.version] = update
        if update.kind == "keyframe" and update.chunks and update.chunks.offsets:
            keyframes.setdefault(update.model, {})[update.version] = update.chunks.offsets[0]
    needed: list[int] = []
    for model, starts in keyframes.items():
        newest = list(starts.values())[-KEPT_KEYFRAMES:]
        if len(newest) < KEPT_KEYFRAMES:
            return None
        needed.append(newest[0])
        for version in served.get(model, ()):
            served_update = updates.get((model, version))
            keyframe = served_update.keyframe_version if served_update else None
            if keyframe is not None and keyframe in starts:
                needed.append(starts[keyframe])
    return min(needed, default=None)


def _bytes(path: list[ModelUpdate], full: bool = False) -> int:
    """Bytes to fetch; ``full``: the first is fetched even where it changes only the label."""
    return sum(
        update.bytes or 0
        for index, update in enumerate(path)
        if not label_only(update) or (full and index == 0)
    )
