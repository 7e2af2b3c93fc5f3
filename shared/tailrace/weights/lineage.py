"""The versions of one model and how they descend from each other. Pure; fed with manifests in log
order.

Publisher and subscriber hold one each. A version's base says where it comes from, by number and
digest; what names other weights under that number does not come from it. A rollback forks, and the
newest version of the log is the head, whichever branch it is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Counter

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate, Release

MANIFESTS_SKIPPED = Counter(
    "tailrace_weights_manifests_skipped", "Manifests that were not taken, by reason", ["reason"]
)
"""Counted by who feeds a lineage."""

_PASSES = 10
"""So many times through the whole model, to undo a delta or to apply one, take as long as fetching
it, about: 0.5 s each and 200 MB for 135M weights."""


_LINES = 4
"""Releases whose lines are kept: of those in force there are two, what is served and trained on."""


def label_only(update: ModelUpdate) -> bool:
    """Whether a holder of the base has these weights already: zero steps, keyframe or not."""
    return update.base_digest is not None and update.digest == update.base_digest


class State(NamedTuple):
    """Weights that somebody has, and the config and tokenizer files beside them."""

    digest: str
    config: str | None = None
    """Digest of the files; None: none were asked for, any will do."""

    def answers(self, digest: str | None, config: str | None) -> bool:
        """Whether these are the weights and files of a manifest, as far as that names any."""
        return self.digest == digest and (config is None or self.config in (None, config))


class Way(NamedTuple):
    """How to get to a version."""

    updates: list[ModelUpdate]
    """In order. The first is a keyframe, or made for weights in reach, or in reach itself."""
    fetched: list[ModelUpdate]
    """Those whose bytes have to be fetched; the others are in reach, or change no weight."""
    undos: int = 0
    """How many steps back it begins."""

    @property
    def bytes(self) -> int:
        """To fetch."""
        return sum(update.bytes or 0 for update in self.fetched)


class Lineage:
    """All manifests of one model that were seen."""

    def __init__(self) -> None:
        self.updates: dict[int, ModelUpdate] = {}
        """By version, in log order."""
        self.adapters: dict[int, ModelUpdate] = {}
        """By version, in log order. They lie on a version and lead to none: no chain has them."""
        self.head: ModelUpdate | None = None
        """The newest, adapters aside."""
        self.next_version = 0
        """One more than any that was used, by an adapter too."""
        self._lines: dict[tuple[bool, int | None, int | None], _Line] = {}

    def add(self, update: ModelUpdate) -> bool:
        """Take the next manifest of the log; False for a version that is there already.

        Raises UpdateRefused (``base``) for one that names other weights than its base has, or a
        delta with other config files: those change with keyframes only. A keyframe needs no base:
        one that names other weights is taken, and comes from nothing. A base that is not known
        (yet) is for who holds it.
        """
        if update.version in self.updates or update.version in self.adapters:
            return False
        base = self.updates.get(-1 if update.base_version is None else update.base_version)
        if base is not None and update.kind != "keyframe" and not _descends(update, base):
            names = f"{update.base_digest!s:.12}, version {base.version} is {base.digest!s:.12}"
            raise UpdateRefused("base", f"version {update.version} is for {names}")
        if base is not None and not keeps_files(update, base):
            raise UpdateRefused("base", f"version {update.version} has other config files")
        self.next_version = max(self.next_version, update.version + 1)
        if update.kind == "adapter":
            self.adapters[update.version] = update
            return True
        self.updates[update.version] = update
        self.head = update
        for key, line in list(self._lines.items()):
            if update.version == line.live:
                del self._lines[key]  # what it left while its version was not there
            else:
                line.add(update)
        return True

    def forget(self, version: int) -> None:
        """Let go of a version, for who keeps the newest alone. What was made from it stays on the
        lines that were asked for."""
        self.updates.pop(version, None)
        self.adapters.pop(version, None)
        for line in self._lines.values():
            line.updates.pop(version, None)

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
        line = self._line(release)
        return list((self if line is None else line).updates.values())

    def served(self, release: Release | None) -> ModelUpdate | None:
        """The version to serve, and to train on, under a release: the newest of its line.

        None where there is none (yet): who serves something stays with it. Takes as long for a
        thousand versions as for one, but the first time that it is asked of a release.
        """
        line = self._line(release)
        return next(reversed((self if line is None else line).updates.values()), None)

    def _line(self, release: Release | None) -> _Line | None:
        """None: every version is on it."""
        if release is None or (release.mode != "pin" and release.live is None):
            return None
        key = release.mode == "pin", release.live, release.withdrawn_to
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) == _LINES:
                del self._lines[next(iter(self._lines))]
            line = self._lines[key] = _Line(release, self.updates)
        return line

    def withdrawn(self, release: Release | None) -> list[ModelUpdate]:
        """The versions after the one to go on from that are not of a release's line."""
        live = None if release is None else release.live
        if live is None:
            return []
        line = {update.version for update in self.line(release)}
        return [u for u in self.updates.values() if u.version > live and u.version not in line]

    def paths(self, reach: Sequence[State], target: int | None = None) -> list[Way]:
        """The ways to ``target`` (None: the head), the quickest first.

        ``reach`` is what the receiver has without a download: what it holds, then one step back,
        two, ... (:attr:`tailrace.weights.store.Store.reach`). A way is the updates after such
        weights, on whichever branch, or a keyframe and what follows it. Empty where there is no
        version yet.

        Raises UpdateRefused (``gap``) when no way exists.
        """
        if target is None:
            if self.head is None:
                return []
            target = self.head.version
        ways: list[Way] = []
        way: list[ModelUpdate] = []
        undos: int | None = None  # to the nearest weights in reach, once they are met
        model_bytes = 0
        for update in self.chain(target):
            if undos is None:
                undos = _index(reach, update.digest, update.config_digest)
                if undos is not None:
                    ways.append(_way(way[::-1] or [update], reach, undos))
            way.append(update)
            if update.kind == "keyframe":
                ways.append(_way(way[::-1], (), 0))
                model_bytes = model_bytes or update.bytes or 0
                if not label_only(update):
                    break  # nobody gets here from its base, but by this keyframe itself
            elif undos is None:  # the base's own manifest need not be known
                undos = _index(reach, update.base_digest, update.config_digest)
                if undos is not None:
                    ways.append(_way(way[::-1], reach, undos))
        if not ways:
            raise UpdateRefused("gap", f"no way to version {target}")

        def cost(way: Way) -> float:
            return way.bytes + (way.undos + len(way.fetched)) * model_bytes / _PASSES

        return sorted(ways, key=cost)


class _Line:
    """The versions that a release leaves to be served, kept up with what is published."""

    def __init__(self, release: Release, known: Mapping[int, ModelUpdate]) -> None:
        self.live = release.live
        self._pinned = release.mode == "pin"
        self._withdrawn_to = release.withdrawn_to or release.live or -1
        live = known.get(-1 if release.live is None else release.live)
        self._there = live is not None
        self.updates = {} if live is None else {live.version: live}
        """By version, in log order."""
        for update in known.values():
            self.add(update)

    def add(self, update: ModelUpdate) -> None:
        """Take the next version; :attr:`live` itself is known from the beginning."""
        base = self.updates.get(-1 if update.base_version is None else update.base_version)
        after = not self._there and update.base_version == self.live
        goes_on = not self._pinned and update.version > self._withdrawn_to
        if goes_on and (after or (base is not None and _descends(update, base))):
            self.updates[update.version] = update


def keeps_files(update: ModelUpdate, base: ModelUpdate) -> bool:
    """Whether an update that brings no config files names those of its base."""
    unsaid = None in (update.config_digest, base.config_digest)
    return update.kind != "delta" or unsaid or update.config_digest == base.config_digest


def _descends(update: ModelUpdate, base: ModelUpdate) -> bool:
    """Whether the base that an update names is this one, not only its number."""
    return (update.base_version, update.base_digest) == (base.version, base.digest)


def _index(reach: Sequence[State], digest: str | None, config: str | None) -> int | None:
    found = (index for index, state in enumerate(reach) if state.answers(digest, config))
    return next(found, None)


def _way(updates: list[ModelUpdate], reach: Sequence[State], undos: int) -> Way:
    fetched = []
    for before, update in zip([None, *updates], updates, strict=False):
        moves = before is None or not label_only(update)
        brings = before is not None and update.config_digest not in (None, before.config_digest)
        if (moves or brings) and _index(reach, update.digest, update.config_digest) is None:
            fetched.append(update)
    return Way(updates, fetched, undos)
