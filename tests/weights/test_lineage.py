"""Which versions lead to which, and the cheapest way between two."""

from typing import Any

import msgspec
import pytest

from tailrace.errors import UpdateRefused
from tailrace.events import Chunks, ModelUpdate, Release
from tailrace.weights.lineage import Lineage, State


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


def _ways(lineage: Lineage, *reach: int, target: int | None = None) -> list[list[int]]:
    """Versions of each way from the weights of ``reach``, the quickest first."""
    held = [str(lineage.updates[v].digest) if v in lineage.updates else f"d{v}" for v in reach]
    return [_versions(way.updates) for way in lineage.paths([*map(State, held)], target)]


def test_nothing_yet() -> None:
    assert Lineage().paths([]) == []


def test_a_holder_takes_deltas_a_newcomer_the_keyframe() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100), _update(1, 0), _update(2, 1))
    assert _ways(lineage, 1) == [[2], [0, 1, 2]]
    assert _ways(lineage) == [[0, 1, 2]]
    assert _ways(lineage, target=1) == [[0, 1]]
    assert _ways(lineage, 2)[0] == [2], "it may still have to take the number"


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
    assert _ways(lineage, 0, target=3)[0] == [1, 3]
    lineage.add(msgspec.structs.replace(_update(4, 2), base_digest="d1"))
    assert _ways(lineage, 0) == [[1, 2, 4], [2, 4], [0, 1, 2, 4]]
    assert _ways(lineage) == [[2, 4], [0, 1, 2, 4]], "with the first way refused, the second"


def test_many_deltas_cost_more_than_a_keyframe() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100))
    for version in range(1, 30):
        lineage.add(_update(version, version - 1))
    lineage.add(_update(30, 29, "keyframe", 100, same_digest=True))
    assert _ways(lineage, 25)[0] == list(range(26, 31))
    assert _ways(lineage, 1)[0] == [30]


def test_a_keyframe_that_moves_weights_is_the_only_way() -> None:
    lineage = _lineage(
        _update(0, None, "keyframe", 100), _update(1, 0, "keyframe", 100), _update(2, 1)
    )
    assert _ways(lineage, 0) == [[1, 2]]


def _forked() -> Lineage:
    """0 1 2 3, and from 1 on: 4 (zero steps), 5, 6."""
    return _lineage(
        _update(0, None, "keyframe", 100),
        *(_update(v, v - 1) for v in (1, 2, 3)),
        _update(4, 1, size_bytes=None, same_digest=True),
        _update(5, 1),
        _update(6, 5),
    )


def test_back_to_where_a_branch_began_then_on() -> None:
    lineage = _forked()
    assert _ways(lineage, 3, 2, 1, 0, target=6)[0] == [5, 6]
    assert _ways(lineage, 3, 2, 1, 0, target=4)[0] == [4], "no bytes at all"
    assert _ways(lineage, 6, 5, 1, target=3)[0] == [2, 3]
    assert _ways(lineage, 6, 5, 1, target=1)[0] == [1]


def test_beyond_the_journal_a_keyframe_is_the_way() -> None:
    lineage = _forked()
    assert _ways(lineage, 3, 2, target=6) == [[0, 1, 5, 6]]
    assert _ways(lineage, 3, target=2) == [[0, 1, 2]]


def test_the_nearest_weights_in_reach_are_the_start() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100), *(_update(v, v - 1) for v in range(1, 9)))
    assert _ways(lineage, 6, 5, 4, target=8)[0] == [7, 8]
    assert _ways(lineage, 6, 5, 4, target=5)[0] == [5]


def test_many_undos_take_longer_than_a_keyframe() -> None:
    lineage = _lineage(_update(0, None, "keyframe", 100), *(_update(v, v - 1) for v in range(1, 9)))
    for version in range(9, 50):
        lineage.add(_update(version, version - 1))
    held = range(49, -1, -1)
    assert _ways(lineage, *held, target=40)[0] == [40]
    assert _ways(lineage, *held, target=1)[0] == [0, 1]
    back, keyframe = lineage.paths([State(f"d{v}") for v in held], 36)
    assert (_versions(back.updates), back.undos, back.bytes) == ([36], 13, 0)
    assert len(keyframe.fetched) == 37, "for 36 deltas in its place a keyframe is no short cut"


def test_weights_beside_other_files_are_not_in_reach() -> None:
    def beside(update: ModelUpdate, config: str) -> ModelUpdate:
        return msgspec.structs.replace(update, config_digest=config)

    lineage = _lineage(
        beside(_update(0, None, "keyframe", 100), "a"),
        beside(_update(1, 0), "a"),
        beside(_update(2, 1, size_bytes=None, same_digest=True), "a"),
        beside(_update(3, 1, "keyframe", 100, same_digest=True), "b"),
    )

    def ways(config: str | None, target: int) -> list[tuple[list[int], list[int]]]:
        found = lineage.paths([State("d1", config)], target)
        return [(_versions(way.updates), _versions(way.fetched)) for way in found]

    for config in ("a", None):
        assert ways(config, 2)[0] == ([2], [])
    assert ways("b", 2) == [([0, 1, 2], [0, 1])]
    assert ways("a", 3)[0] == ([3], [3]), "the same weights beside other files: a download"
    assert ways("b", 3)[0] == ([3], [])
    with pytest.raises(UpdateRefused, match="base: version 4 has other config files"):
        lineage.add(beside(msgspec.structs.replace(_update(4, 3), base_digest="d1"), "a"))


def test_a_base_whose_manifest_is_unknown_will_do_for_who_holds_it() -> None:
    lineage = _lineage(_update(5, 4), _update(6, 5))
    assert _ways(lineage, 5) == [[6]]
    assert _ways(lineage, 4) == [[5, 6]]


def test_a_gap_is_refused() -> None:
    lineage = _lineage(_update(5, 4), _update(6, 5))
    for reach in ([], [State("d3")]):
        with pytest.raises(UpdateRefused, match="gap"):
            lineage.paths(reach)
    with pytest.raises(UpdateRefused, match="gap"):
        lineage.paths([State("d5")], target=7)


def test_a_circle_ends() -> None:
    lineage = _lineage(_update(2, 3), _update(3, 2))
    assert [u.version for u in lineage.chain(3)] == [3, 2]


def _served(lineage: Lineage, **fields: Any) -> int | None:
    update = lineage.served(Release(model="m", event_time_ms=1, **fields))
    return None if update is None else update.version


def test_without_a_word_the_newest_is_served() -> None:
    assert Lineage().served(None) is None
    lineage = _lineage(_update(0, None, "keyframe"), _update(1, 0))
    assert lineage.served(None) is lineage.head
    assert _served(lineage) == 1
    assert _served(lineage, mode="pin", live=0) == 0
    assert _served(lineage, mode="pin", live=7) is None, "there is no version 7"
    assert _served(lineage, mode="pin") is None


def test_what_goes_on_from_an_unknown_version_serves_nothing_that_was_withdrawn() -> None:
    versions = [_update(0, None, "keyframe"), *(_update(v, v - 1) for v in range(1, 6))]
    lineage = _lineage(*versions)
    rolled_back: dict[str, Any] = {"live": 7, "withdrawn_to": 9}
    assert _served(lineage, **rolled_back) is None
    for version, base in ((8, 7), (9, 5), (10, 5), (11, 9)):
        lineage.add(_update(version, base))
    assert _served(lineage, **rolled_back) is None, "withdrawn, or made from what was"
    lineage.add(_update(12, 7))
    lineage.add(_update(13, 12))
    assert _served(lineage, **rolled_back) == 13, "made from version 7 since"
    back = Release(event_time_ms=0, **rolled_back)
    assert _versions(lineage.withdrawn(back)) == [8, 9, 10, 11]
    assert _served(lineage, live=7) == 13


def test_a_base_is_the_weights_and_not_the_number_alone() -> None:
    lineage = _lineage(_update(0, None, "keyframe"), _update(1, 0))
    for kind in ("delta", "adapter"):
        wrong = msgspec.structs.replace(_update(2, 1, kind), base_digest="d0")
        with pytest.raises(UpdateRefused, match="base: version 2 is for d0, version 1 is d1"):
            lineage.add(wrong)
    assert lineage.next_version == 2 and lineage.head == lineage.updates[1]
    assert lineage.add(_update(2, 1)), "its number is free for the right one"
    lone = msgspec.structs.replace(_update(3, 2, "keyframe"), base_digest="d0")
    assert lineage.add(lone), "a keyframe is whole by itself"
    assert _versions(list(lineage.chain(3))) == [3]
    assert _served(lineage, live=1, withdrawn_to=1) == 2, "but comes from nothing"


def test_what_takes_the_number_of_a_base_later_is_not_that_base() -> None:
    lineage = _lineage(_update(0, None, "keyframe"), _update(3, 2), _update(4, 3))
    lineage.add(msgspec.structs.replace(_update(2, 0), digest="another"))
    assert _versions(list(lineage.chain(4))) == [4, 3]
    assert _served(lineage, live=0, withdrawn_to=0) == 2
    with pytest.raises(UpdateRefused, match="gap"):
        lineage.paths([], 4)


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


def test_what_a_release_withdraws_is_all_after_its_version_that_is_not_of_its_line() -> None:
    lineage = _forked()
    back = Release(event_time_ms=0, live=1, withdrawn_to=3)
    assert _versions(lineage.line(back)) == [1, 4, 5, 6]
    assert _versions(lineage.withdrawn(back)) == [2, 3]
    again = msgspec.structs.replace(back, withdrawn_to=6)
    assert _versions(lineage.line(again)) == [1]
    assert _versions(lineage.withdrawn(again)) == [2, 3, 4, 5, 6]
    other = Release(event_time_ms=0, live=3, withdrawn_to=6)
    assert _versions(lineage.withdrawn(other)) == [4, 5, 6]
    assert lineage.withdrawn(None) == lineage.withdrawn(Release(event_time_ms=0)) == []
    assert _versions(lineage.line(None)) == [0, 1, 2, 3, 4, 5, 6]
