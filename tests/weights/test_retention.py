"""What stays of the bytes of versions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailrace.events import Chunks, ModelUpdate, Release
from tailrace.weights.lineage import Lineage
from tailrace.weights.retention import first_needed_offset, retained, served


def _keyframe(version: int, offset: int | None, model: str = "m") -> ModelUpdate:
    return _version(version, "keyframe", version, offset, model)


def _version(
    version: int, kind: str, keyframe: int, offset: int | None, model: str = "m"
) -> ModelUpdate:
    return ModelUpdate(
        model=model,
        version=version,
        created_ms=0,
        kind=kind,
        keyframe_version=keyframe,
        chunks=None if offset is None else Chunks(offsets=[offset]),
        uri=f"memory://{version}" if offset is None and kind == "keyframe" else None,
    )


def _kept(updates: Iterable[ModelUpdate], *served: int) -> list[int]:
    return [update.version for update in retained(updates, served)]


def test_chunks_below_the_third_newest_keyframe_may_go() -> None:
    updates = [_keyframe(v, 10 * v) for v in range(1, 4)]
    assert first_needed_offset([], {}) is None
    assert first_needed_offset(updates[:2], {}) is None
    assert first_needed_offset(updates, {}) == 10
    updates.append(_keyframe(4, 40))
    assert first_needed_offset(updates, {}) == 20
    assert first_needed_offset(updates, {"m": [1]}) == 10
    assert first_needed_offset(updates, {"other": [1]}) == 20
    assert first_needed_offset(updates, {"m": [7]}) == 10, "version 7 is not known: all stays"
    other = _keyframe(0, 5, model="other")
    assert first_needed_offset([*updates, other], {}) == 5, "all of another's stays, no more"


def test_what_a_release_names_stays_with_its_keyframe() -> None:
    updates = []
    for version in range(12):  # 0 k, 1, 2, 3 k, ...
        keyframe = version - version % 3
        kind = "keyframe" if version == keyframe else "delta"
        updates.append(_version(version, kind, keyframe, 10 * version))
    assert _kept(updates) == list(range(3, 12))
    assert _kept(updates, 11, 4) == list(range(3, 12))
    assert _kept(updates, 2) == list(range(12))
    assert _kept(updates, 99) == list(range(12)), "what an unknown version needs is unknown"
    branch = _version(12, "delta", 3, 120)  # from version 4
    assert _kept([*updates, branch, *(_keyframe(v, 10 * v) for v in (13, 14))], 12)[0] == 3


def test_keyframes_in_a_store_count_and_the_deltas_after_them_are_kept() -> None:
    updates = []
    for version in range(0, 10, 2):
        updates += [_keyframe(version, None), _version(version + 1, "delta", version, version)]
    assert _kept(updates) == [4, 5, 6, 7, 8, 9]
    assert first_needed_offset(updates, {}) == 4


def test_a_repeated_version_does_not_count() -> None:
    updates = [_keyframe(v, 10 * v) for v in range(1, 4)]
    assert _kept([*updates, *updates, _keyframe(3, 5)]) == [1, 2, 3]


def test_what_a_rollback_went_back_to_is_let_go_when_its_branch_has_left_it() -> None:
    lineage = Lineage()
    base = None
    for version in range(20):  # 0 k, 1, 2, 3 k, ...; back to 1 after 5, and on from 6
        base = 1 if version == 6 else base
        keyframe = 0 if 6 <= version < 9 else version - version % 3
        kind = "keyframe" if version == keyframe else "delta"
        update = _version(version, kind, keyframe, 10 * version)
        lineage.add(msgspec.structs.replace(update, base_version=base))
        base = version
        back = Release(model="m", event_time_ms=1, live=1, withdrawn_to=5)
        names = served(lineage, [back] if version >= 5 else [])
        first = retained(lineage.updates.values(), names)[0].version
        assert first == {12: 3, 15: 9, 18: 12}.get(version - version % 3, 0), version
        if version == 8:
            pin = Release(model="m", event_time_ms=2, mode="pin", live=4)
            assert served(lineage, [pin, back]) == {4, 8}
    assert served(lineage, [Release(model="m", event_time_ms=3, candidate=3)]) == {19, 3}
    assert served(lineage, [Release(model="m", event_time_ms=3, mode="pin", live=99)]) == {99}
