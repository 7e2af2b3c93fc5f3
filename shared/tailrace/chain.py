"""What the manifests say about each other: base chains, decided records, digests. Pure.

A version decided ``([start, end) + base.held) - held`` of each partition of ``trajectories``, where
its ``start`` is its base's ``end`` (DESIGN section 6, Lineage). Along a chain these sets tile the
log. A partition that a manifest does not name is as its base left it.
Called by :mod:`tailrace.audit`; how to get from one version's weights to another's is
:mod:`tailrace.weights.lineage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tailrace.events import Coordinates, ModelUpdate

Place = tuple[int, int]
"""Partition and offset on one topic."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not add up, and where."""

    kind: str
    where: Coordinates | None = None
    version: int | None = None
    detail: str = ""


def base_chain(
    updates: Iterable[ModelUpdate], head: int | None, problems: list[Problem]
) -> list[ModelUpdate]:
    """The versions from the root to ``head`` (None: the newest, adapters aside), oldest first.

    Appends what is wrong to ``problems``: ``no_version``, ``version_reused``, ``no_base``,
    ``wrong_root``, ``base_digest``, ``zero_step_digest``.
    """
    by_version: dict[int, ModelUpdate] = {}
    for update in updates:
        if by_version.setdefault(update.version, update) != update:
            problems.append(Problem(kind="version_reused", version=update.version))
    if head is None:
        head = max((v for v, u in by_version.items() if u.kind != "adapter"), default=None)
    if head is None:
        return []
    if head not in by_version:
        problems.append(Problem(kind="no_version", version=head))
        return []
    found = [by_version[head]]
    while (base := found[-1].base_version) is not None:
        if base not in by_version or base >= found[-1].version:
            problems.append(
                Problem(kind="no_base", version=found[-1].version, detail=f"base {base}")
            )
            break
        found.append(by_version[base])
    found.reverse()
    _check_digests(found, problems)
    return found


def _check_digests(versions: Sequence[ModelUpdate], problems: list[Problem]) -> None:
    root = versions[0]
    if root.base_version is None and root.kind != "keyframe":
        problems.append(Problem(kind="wrong_root", version=root.version, detail=str(root.kind)))
    for base, update in zip(versions, versions[1:], strict=False):
        if update.base_digest != base.digest:
            detail = f"names {update.base_digest}, base {base.version} has {base.digest}"
            problems.append(Problem(kind="base_digest", version=update.version, detail=detail))
        zero_step = update.chunks is None and update.uri is None
        if zero_step and update.digest != base.digest:
            detail = "no bytes, yet another digest than its base"
            problems.append(Problem(kind="zero_step_digest", version=update.version, detail=detail))


def decisions(
    versions: Sequence[ModelUpdate], starts: Mapping[int, int], problems: list[Problem]
) -> Iterator[tuple[int, set[Place], set[Place]]]:
    """(version, what it decided, what of that had expired unread), for each version of a chain.

    Only places at or above the low watermarks ``starts``. Appends ``gap`` (a range does not begin
    where the base's ended), ``backwards`` and ``held_outside`` (a held record that was decided
    already or is not below the end) to ``problems``.
    """
    ends: dict[int, int] = {}
    held: dict[int, set[int]] = {}
    for number, update in enumerate(versions):
        decided: set[Place] = set()
        expired: set[Place] = set()
        for one in update.ranges:
            partition, low = one.partition, starts.get(one.partition, 0)
            if number or update.base_version is None:
                expected = ends.get(partition, 0)
                if one.start != expected:
                    problems.append(
                        _range_problem("gap", update, partition, one.start, f"base: {expected}")
                    )
            if one.end < one.start:
                problems.append(_range_problem("backwards", update, partition, one.start))
            pool = held.get(partition, set()) | set(range(max(one.start, low), one.end))
            outside = {h for h in one.held if h >= low} - pool
            for offset in sorted(outside):
                problems.append(_range_problem("held_outside", update, partition, offset))
            done = {o for o in pool - set(one.held) if o >= low}
            decided |= {(partition, o) for o in done}
            if one.expired_to is not None:
                expired |= {(partition, o) for o in done if one.start <= o < one.expired_to}
            held[partition] = set(one.held)
            ends[partition] = one.end
        yield update.version, decided, expired


def check_bounds(
    versions: Sequence[ModelUpdate],
    ends: Mapping[int, int],
    chunks: tuple[int, int] | None,
    problems: list[Problem],
) -> None:
    """Hold the head of a chain against what the topics still hold.

    ``ends``: high watermarks of ``trajectories``; ``chunks``: both watermarks of ``model-chunks``.
    Appends ``beyond_end`` (the head decided records that the log has not) and ``no_chunks`` (a
    version on the way from the last keyframe has lost its bytes).
    """
    for one in versions[-1].ranges if versions else ():
        if one.end > ends.get(one.partition, one.end):
            detail = f"the log ends at {ends[one.partition]}"
            problems.append(
                _range_problem("beyond_end", versions[-1], one.partition, one.end, detail)
            )
    for update in reversed(versions if chunks else ()):
        low, high = chunks or (0, 0)
        offsets = update.chunks.offsets if update.chunks else []
        for offset in [o for o in offsets if not low <= o < high][:1]:
            where = Coordinates(topic="model-chunks", offset=offset)
            problems.append(Problem(kind="no_chunks", where=where, version=update.version))
        if update.kind == "keyframe":
            break


def _range_problem(
    kind: str, update: ModelUpdate, partition: int, offset: int, detail: str = ""
) -> Problem:
    where = Coordinates(topic="trajectories", partition=partition, offset=offset)
    return Problem(kind=kind, where=where, version=update.version, detail=detail)
