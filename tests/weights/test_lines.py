"""What a release leaves to be served, kept up version by version: the same as if it was asked
first."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tailrace.events import ModelUpdate, Release
from tailrace.weights.lineage import Lineage


def _update(version: int, base: int | None, kind: str = "keyframe") -> ModelUpdate:
    return ModelUpdate(
        model="m",
        version=version,
        created_ms=0,
        kind=kind,
        base_version=base,
        base_digest=None if base is None else f"d{base}",
        digest=f"d{version}",
    )


def _fresh(updates: list[ModelUpdate]) -> Lineage:
    lineage = Lineage()
    for update in updates:
        lineage.add(update)
    return lineage


@st.composite
def _updates(draw: st.DrawFn) -> list[ModelUpdate]:
    """Versions that fork, come late and have bases that are not there."""
    numbers = draw(st.permutations(range(draw(st.integers(1, 12)))))
    if draw(st.booleans()):
        numbers = sorted(numbers)
    return [_update(n, draw(st.none() | st.integers(0, n))) for n in numbers]


_RELEASES = st.none() | st.builds(
    lambda mode, live, more: Release(
        model="m",
        event_time_ms=1,
        mode=mode,
        live=live,
        withdrawn_to=None if live is None or more is None else live + more,
    ),
    st.sampled_from(["follow", "pin"]),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 6),
)


@given(_updates(), st.lists(_RELEASES, min_size=1, max_size=6))
def test_a_line_that_is_kept_up_is_the_line(updates: list[ModelUpdate], asked: list[Any]) -> None:
    lineage, taken = Lineage(), []
    for update in updates:
        lineage.add(update)
        taken.append(update)
        for release in asked:
            assert lineage.line(release) == (found := _fresh(taken).line(release))
            assert lineage.served(release) == (found[-1] if found else None)
    assert lineage.next_version == max(update.version for update in updates) + 1


def test_a_line_is_not_walked_again() -> None:
    lineage = _fresh([_update(0, None)])
    back = Release(model="m", event_time_ms=1, live=0, withdrawn_to=5)
    for version in range(1, 6):
        lineage.add(_update(version, version - 1))
    assert lineage.served(back) == lineage.updates[0]
    for version in range(6, 20):
        lineage.add(_update(version, 0 if version == 6 else version - 1))
    asked = lineage.updates
    lineage.updates = {}  # what was asked for is known without it
    served = lineage.served(back)
    assert served is not None and served.version == 19
    lineage.updates = asked
    assert [update.version for update in lineage.line(back)] == [0, *range(6, 20)]


def test_who_forgets_old_versions_keeps_what_was_made_from_them() -> None:
    lineage = _fresh([_update(0, None), *(_update(v, v - 1) for v in range(1, 6))])
    back = Release(model="m", event_time_ms=1, live=0, withdrawn_to=2)
    lineage.add(_update(6, 0))
    assert [update.version for update in lineage.line(back)] == [0, 6]
    lineage.forget(0)
    lineage.add(_update(7, 6))
    assert [update.version for update in lineage.line(back)] == [6, 7]
    assert lineage.next_version == 8 and 0 not in lineage.updates
