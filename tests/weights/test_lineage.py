from typing import Any

import pytest

from tailrace.errors import UpdateRefused
from tailrace.events import Chunks, ModelUpdate, Release
from tailrace.weights.lineage import Lineage, first_needed_offset


def _update(
    version: int,
    base: int | None,
    kind: str = "delta",
    size_bytes: int | None = 10,
    same_digest: bool = False,
    first_chunk: int = 0,
    model: str = "m",
) -> ModelUpdate:
    base_digest = None if base is None else f"d{base}"
    return ModelUpdate(
        model=model,
        version=version,
        created_ms=0,
        base_version=base,
        base_digest=base_digest,
        digest=base_digest if same_digest else f"d{version}",
        kind=kind,
        bytes=size_bytes,
        keyframe_version=version if kind == "keyframe" else None,
        chunks=None if size_bytes is None else Chunks(offsets=[first_chunk]),
    )


def _lineage(*updates: ModelUpdate) -> Lineage:
    lineage = Lineage()
    for update in updates:
        assert lineage.add(update)
    return lineage


def _versions(updates: list[ModelUpdate]) -> list[int]:
    return [update.version for update in updates]


def test_nothing_yet() -> None:
    assert Lineage().path(None) == []


def test_a_holder_takes_deltas_a_newcomer_the_keyframe() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100), _update(1, 0), _update(2, 1))
    assert _versions(lineage.path(1)) == [2]
    assert _versions(lineage.path(None)) == [0, 1, 2]
    assert _versions(lineage.path(None, target=1)) == [0, 1]
    assert lineage.path(2) == []


def test_a_repeated_version_does_not_count() -> None:
    lineage = _lineage(_update(0, None, "keyframe"), _update(1, 0))
    assert not lineage.add(_update(1, 0, "keyframe"))
    assert lineage.head is not None
    assert lineage.head.kind == "delta"


def test_a_keyframe_of_the_same_weights_costs_a_holder_nothing() -> None:
    lineage = _lineage(
        _update(0, None, "keyframe", 100),
        _update(1, 0),
        _update(2, 1, "keyframe", 100, same_digest=True),
        _update(3, 1, size_bytes=10),
    )
    assert _versions(lineage.path(0)) == [1, 3]
    lineage.add(_update(4, 2))
    assert _versions(lineage.path(1)) == [2, 4]
    assert _versions(lineage.path(None)) == [2, 4]


def test_many_deltas_cost_more_than_a_keyframe() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100))
    for version in range(1, 30):
        lineage.add(_update(version, version - 1))
    lineage.add(_update(30, 29, "keyframe", 100, same_digest=True))
    assert _versions(lineage.path(25)) == list(range(26, 31))
    assert _versions(lineage.path(1)) == [30]


def test_a_keyframe_that_moves_weights_is_the_only_way() -> None:
    lineage = _lineage(
        _update(0, None, "keyframe", 100), _update(1, 0, "keyframe", 100), _update(2, 1)
    )
    assert _versions(lineage.path(0)) == [1, 2]


def test_a_fork_leads_back_by_its_keyframe() -> None:
    lineage = _lineage(
        _update(0, None, "keyframe", 100),
        _update(1, 0),
        _update(2, 1),
        _update(3, 1, "keyframe", 100, same_digest=True),
        _update(4, 3),
    )
    assert _versions(lineage.path(2)) == [3, 4]
    assert _versions(lineage.path(1)) == [3, 4]
    assert [u.version for u in lineage.chain(4)] == [4, 3, 1, 0]


def test_a_gap_is_refused() -> None:
    lineage = _lineage(_update(5, 4), _update(6, 5))
    assert _versions(lineage.path(5)) == [6]
    with pytest.raises(UpdateRefused, match="gap"):
        lineage.path(3)


def test_a_circle_ends() -> None:
    lineage = _lineage(_update(2, 3), _update(3, 2))
    assert [u.version for u in lineage.chain(3)] == [3, 2]


def test_chunks_below_the_third_newest_keyframe_may_go() -> None:
    updates = [_update(v, v - 1 or None, "keyframe", first_chunk=10 * v) for v in range(1, 4)]
    assert first_needed_offset(updates[:2], {}) is None
    assert first_needed_offset(updates, {}) == 10
    updates.append(_update(4, 3, "keyframe", first_chunk=40))
    assert first_needed_offset(updates, {}) == 20
    assert first_needed_offset(updates, {"m": [1]}) == 10
    assert first_needed_offset(updates, {"m": [7], "other": [1]}) == 20
    other = _update(0, None, "keyframe", first_chunk=5, model="other")
    assert first_needed_offset([*updates, other], {}) is None


def _served(lineage: Lineage, **fields: Any) -> int | None:
    update = lineage.served(Release(model="m", event_time_ms=1, **fields))
    return None if update is None else update.version


def test_without_a_word_the_newest_is_served() -> None:
    assert Lineage().served(None) is None
    lineage = _lineage(_update(0, None, "keyframe"), _update(1, 0))
    assert lineage.served(None) is lineage.head
    assert _served(lineage) == 1
    assert _served(lineage, mode="pin", live=0) == 0
    assert _served(lineage, mode="pin", live=7) == 1, "there is no version 7"


def test_what_was_withdrawn_is_not_served_nor_what_descends_from_it() -> None:
    versions = [_update(0, None, "keyframe"), *(_update(v, v - 1) for v in range(1, 6))]
    lineage = _lineage(*versions)
    rolled_back: dict[str, Any] = {"live": 2, "withdrawn_to": 4}
    assert _served(lineage, **rolled_back) == 2, "version 5 was under way and descends from 4"
    lineage.add(_update(6, 2))
    lineage.add(_update(7, 5))
    assert _served(lineage, **rolled_back) == 6
    lineage.add(_update(8, 6))
    assert _served(lineage, **rolled_back) == 8
    assert _served(lineage, live=6, withdrawn_to=8) == 6, "and back once more"
