"""What stays of the bytes of versions, and the deleting of the rest. Manifests stay for ever.

The rule, for chunks on the log and keyframes in a store alike: a model's third-newest keyframe and
all that follows stay; so does what follows the keyframe of the version that the release in force
leaves to be served, and of the one that training goes on from. On
``model-chunks``, which all models of a prefix share, the low watermark moves up to what the
neediest needs. In a store every other keyframe goes, those too that a crash left and no manifest
names; but none whose number is not below the next of the lineage: it may be a newer publisher's.

Called by :mod:`.publisher`, at its start and after each keyframe. What cannot be deleted now is
logged, and deleted the next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
import logging

from tailrace import topics
from tailrace.errors import Fenced, InvalidRecord, LogError
from tailrace.events import ModelUpdate, Release
from tailrace.log.base import Log
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights import places
from tailrace.weights.lineage import Lineage
from tailrace.weights.past import Manifests
from tailrace.weights.places import STORE_FAILED, Place

_log = logging.getLogger(__name__)

KEPT_KEYFRAMES = 3
"""How many keyframes of a model, the newest, stay with all that follows."""


def retained(updates: Iterable[ModelUpdate], served: Iterable[int]) -> list[ModelUpdate]:
    """Of one model's versions, in log order, those whose bytes stay.

    ``served`` are the versions that must be made yet, see :func:`served`. One that is not known may
    need anything: then all stays.
    """
    order: dict[int, ModelUpdate] = {}
    for update in updates:
        order.setdefault(update.version, update)
    found = list(order.values())
    at = {u.version: index for index, u in enumerate(found) if u.kind == "keyframe"}
    first = list(at.values())[-KEPT_KEYFRAMES] if len(at) >= KEPT_KEYFRAMES else 0
    for version in served:
        if version not in order:
            return found
        keyframe = order[version].keyframe_version
        first = min(first, at.get(-1 if keyframe is None else keyframe, first))
    return found[first:]


def served(lineage: Lineage, releases: Iterable[Release]) -> set[int]:
    """The versions that releases of one model leave to be served: those that they pin, the newest
    of those that they follow, candidates."""
    found: set[int] = set()
    for release in releases:
        update = lineage.served(release)
        version = release.live if update is None else update.version
        found |= {v for v in (version, release.candidate) if v is not None}
    return found


def first_needed_offset(
    manifests: Iterable[ModelUpdate], served: Mapping[str, Iterable[int]]
) -> int | None:
    """The first offset of ``model-chunks`` that some model still needs; None while nothing may go.

    As while no model has three keyframes: what lies there may be another's first version, whose
    manifest is not written yet.
    """
    models: dict[str, list[ModelUpdate]] = {}
    for update in manifests:
        models.setdefault(update.model, []).append(update)
    if not any(_keyframes(updates) >= KEPT_KEYFRAMES for updates in models.values()):
        return None
    needed: list[int] = []
    for model, updates in models.items():
        for update in retained(updates, served.get(model, ())):
            if update.chunks and update.chunks.offsets:
                needed.append(min(update.chunks.offsets))
    return min(needed, default=None)


def _keyframes(updates: Iterable[ModelUpdate]) -> int:
    return len({update.version for update in updates if update.kind == "keyframe"})


class Retention:
    """Deletes what the rule gives up."""

    def __init__(self, log: Log, decoder: Decoder, *, prefix: str, place: Place | None) -> None:
        self._log, self._decoder, self._place = log, decoder, place
        self._chunks = named(topics.MODEL_CHUNKS, prefix)
        self._releases = named(topics.RELEASES, prefix)
        self._read_to: dict[int, int] = {}
        self._found: dict[str, dict[str, Release]] = {}
        """By model, see :meth:`_in_force`."""

    def holds(self, update: ModelUpdate) -> bool:
        """Whether an update's bytes are still there. Raises UpdateRefused (``uri``) when the store
        in which they are to be does not say."""
        if update.chunks is None:
            return update.uri is not None and places.exists(update.uri)
        return min(update.chunks.offsets, default=-1) >= self._log.starts(self._chunks)[0]

    def trim(self, manifests: Manifests, lineage: Lineage) -> None:
        """After a keyframe of ``lineage``: ``manifests`` know the other models."""
        try:
            assert lineage.head is not None
            lineages = {**manifests.others(), lineage.head.model: lineage}
            releases = self._in_force()
            names = {m: served(each, releases.get(m, ())) for m, each in lineages.items()}
            found = [update for each in lineages.values() for update in each.updates.values()]
            offset = first_needed_offset(found, names)
            if offset is not None and offset > self._log.starts(self._chunks)[0]:
                self._log.delete_before(self._chunks, {0: offset})
                _log.info("deleted topic=%s partition=0 below_offset=%d", self._chunks, offset)
            self.sweep(lineage)
        except Fenced:
            raise
        except LogError as error:
            _log.warning("kept topic=%s partition=0: %s", self._chunks, error)

    def sweep(self, lineage: Lineage) -> None:
        """Delete stored keyframes that nobody needs or no manifest names, of numbers that are
        used: one that is slow, and was fenced long ago, leaves what its successor stored."""
        if self._place is None or lineage.head is None:
            return  # without any version this may be the wrong log beside the right store
        releases = self._in_force().get(lineage.head.model, ())
        kept = retained(lineage.updates.values(), served(lineage, releases))
        try:
            uris = {update.uri for update in kept if update.uri is not None}
            gone = self._place.sweep(uris, lineage.next_version)
        except Exception as error:  # each store raises its own
            STORE_FAILED.labels("delete").inc()
            _log.warning("kept old keyframes: %r", error)
        else:
            if gone:
                _log.info("deleted keyframes=%s", gone)

    def _in_force(self) -> dict[str, list[Release]]:
        """Of each model the newest Release, and the newest that says what to train on."""
        for record in read_all(
            self._log, self._releases, starts=self._read_to, committed_only=True
        ):
            with contextlib.suppress(InvalidRecord):
                release = self._decoder.decode(record)
                assert isinstance(release, Release)
                kinds = self._found.setdefault(release.model, {})
                kinds["newest"] = release
                if release.mode != "pin":
                    kinds["followed"] = release
            # Not before: the broker may not answer the decoder, and this is asked again then.
            self._read_to[record.partition] = record.offset + 1
        return {model: list(kinds.values()) for model, kinds in self._found.items()}
