"""Which manifests a trainer with a key takes for its own history."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.events import ModelUpdate
from tailrace.weights.history import FAR, Written, history, next_version, stranger_after


def _update(version: int, base: int | None, mark: str = "d", kind: str = "delta") -> ModelUpdate:
    return ModelUpdate(
        version=version,
        created_ms=0,
        kind=kind,
        base_version=base,
        base_digest=None if base is None else f"d{base}",
        digest=f"{mark}{version}",
    )


def _versions(found: list[ModelUpdate]) -> list[int]:
    return [update.version for update in found]


def test_an_adapter_is_no_version_to_go_on_from() -> None:
    written = [
        Written(_update(0, None, kind="keyframe"), False),
        Written(_update(1, 0), False),
        Written(_update(2, 1, kind="adapter"), False),
    ]
    assert _versions(history(written, 2)) == _versions(history(written, 1)) == [0, 1]
    assert history(written) == history(written, -1) == history([], 5) == []
    # Nor does a signed one cut off what came after the version that it lies on.
    signed = [*written, Written(_update(3, 0, kind="adapter"), True)]
    assert [_versions(history(signed, to)) for to in (None, 1)] == [[3], [0, 1, 3]]
    version = Written(_update(4, 1), True)
    assert _versions(history([*signed, version])) == [0, 1, 3, 4]


def test_a_key_that_signed_after_a_persons_word_is_named() -> None:
    written = [
        Written(_update(0, None, kind="keyframe"), False),
        Written(_update(1, 0), False, "a"),
        Written(_update(2, 1), False, "b"),
        Written(_update(3, 2), False, "a"),
    ]
    found = [stranger_after(written, number) for number in (-1, 0, 1, 2, 3, 9)]
    assert found == ["a", "a", "b", "a", None, None]
    assert stranger_after(written[:1], -1) is None


def test_no_number_is_used_twice_and_none_that_is_far_off_counts() -> None:
    own = [_update(0, None), _update(4, 0)]
    for number, after in ((2, 5), (9, 10), (4 + FAR, 5 + FAR), (5 + FAR, 5)):
        written = [Written(update, True) for update in own]
        assert next_version([*written, Written(_update(number, 0, "x"), False)], own) == after
    assert next_version([], []) == 0


def test_a_circle_ends() -> None:
    written = [Written(_update(2, 3), False), Written(_update(3, 2), False)]
    assert _versions(history(written, 3)) == [2, 3]


@st.composite
def _logs(draw: st.DrawFn) -> tuple[list[Written], list[tuple[int, Written]]]:
    """A log whose versions are signed from some number on, and what strangers put where."""
    first = draw(st.integers(0, 5))
    own = [
        Written(_update(v, draw(st.integers(0, v - 1)) if v else None), v >= first)
        for v in range(draw(st.integers(first + 1, 9)))
    ]
    strangers = [
        (draw(st.integers(0, len(own))), Written(_update(v, base, "x"), False))
        for v, base in draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))))
    ]
    return own, strangers


@settings(max_examples=200, deadline=None)
@given(_logs())
def test_strangers_change_nothing(log: tuple[list[Written], list[tuple[int, Written]]]) -> None:
    own, strangers = log
    written = list(own)
    for place, stranger in sorted(strangers, key=lambda each: -each[0]):
        written.insert(place, stranger)
    found = history(written)
    assert found == history(own)
    assert [u for u in found if u.version >= own[-1].update.version] == [own[-1].update]
    back = {update.version: update for update in found}
    first = next(each.update for each in own if each.signed)
    at: int | None = first.version
    while at is not None:  # its whole descent is there
        at = back[at].base_version
    assert all(each.update in found for each in own if each.signed)
