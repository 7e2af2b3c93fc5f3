"""Who may replace or take back what somebody said: nobody but a grader itself silences it."""

from __future__ import annotations

import msgspec
import pytest

from tests.rewards.history import read_in_order
from tests.rewards.test_join import SPEC, Story


@pytest.mark.parametrize(
    ("said", "source", "metric", "allowed"),
    [
        ("user", "user", "thumbs", True),
        ("user", "grader", "thumbs", True),
        ("implicit", "user", "thumbs", True),
        ("grader", "grader", "thumbs", True),
        ("grader", "user", "thumbs", False),
        ("grader", "implicit", "thumbs", False),
        ("user", "user", "done", False),
    ],
)
def test_who_may_replace_whom(said: str, source: str, metric: str, allowed: bool) -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a", source=said)
    second = story.feedback(
        *(interaction, "b"),
        boolean=False,
        metric=metric,
        source=source,
        replaces=f"{interaction}!a",
    )
    result = story.end()
    assert result.outcomes() == {first: "replaced" if allowed else "joined", second: "joined"}
    assert (b"no_target" in next(iter(result.receipts[second]))) is not allowed


@pytest.mark.parametrize(
    ("said", "source", "outcomes"),
    [
        ("grader", "user", ("joined", "no_target")),
        ("grader", "implicit", ("joined", "no_target")),
        ("grader", "grader", ("withdrawn", "applied")),
        ("user", "grader", ("withdrawn", "applied")),
    ],
)
def test_who_may_take_back_what(said: str, source: str, outcomes: tuple[str, str]) -> None:
    story = Story()
    interaction = story.turn()
    story.feedback(interaction, "a", source=said)
    story.feedback(interaction, "b", action="retract", source=source, replaces=f"{interaction}!a")
    assert tuple(story.end().outcomes()[offset] for offset in (0, 1)) == outcomes


HELPFUL, POLITE = (
    {"source": "grader", "grader": "helpful"},
    {"source": "grader", "grader": "polite"},
)
KEY, ROTATED = {"principal": "4711"}, {"principal": "0815"}


@pytest.mark.parametrize(
    ("said", "by", "allowed"),
    [
        (HELPFUL, HELPFUL, True),
        (HELPFUL, POLITE, False),
        (HELPFUL, {"source": "grader"}, False),
        (HELPFUL, HELPFUL | KEY, False),
        (HELPFUL | KEY, HELPFUL, False),
        (HELPFUL | KEY, HELPFUL | ROTATED, True),
        (HELPFUL | KEY, POLITE | KEY, False),
        ({"source": "user"} | KEY, POLITE | ROTATED, True),
    ],
)
@pytest.mark.parametrize("action", ["set", "retract"])
def test_a_grader_s_word_is_that_grader_s(
    said: dict[str, str], by: dict[str, str], allowed: bool, action: str
) -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a", **said)
    second = story.feedback(interaction, "b", action=action, replaces=f"{interaction}!a", **by)
    result = story.end()
    if action == "set":
        assert result.outcomes() == {first: "replaced" if allowed else "joined", second: "joined"}
        assert (b"no_target" in next(iter(result.receipts[second]))) is not allowed
    else:
        outcomes = ("withdrawn", "applied") if allowed else ("joined", "no_target")
        assert tuple(result.outcomes()[offset] for offset in (0, 1)) == outcomes


@pytest.mark.parametrize(
    ("missing", "by"), [(("source", "grader"), {}), (("grader",), {"source": "grader"})]
)
def test_a_word_that_was_kept_without_who_said_it_can_be_taken_back(
    missing: tuple[str, ...], by: dict[str, str]
) -> None:
    story = Story()
    interaction = story.turn()
    story.feedback(interaction, "a", **HELPFUL)
    story.run(1)
    reader = read_in_order(story, SPEC)
    key = b"0/feedback/0"
    kept = msgspec.msgpack.decode(reader.table.values[key])
    said = {"source": "grader", "grader": "log:helpful"}
    assert {name: kept.pop(name) for name in missing} == {name: said[name] for name in missing}
    reader._durable[key] = msgspec.msgpack.encode(kept)
    reader.assign()
    story.feedback(interaction, "b", action="retract", replaces=f"{interaction}!a", **by)
    story.run(10)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(lambda low, high: high)
    assert set(reader.result.outcomes().values()) == {"withdrawn", "applied"}


def test_a_retraction_in_vain_does_not_stand_in_the_way_of_another() -> None:
    story = Story()
    interaction = story.turn()
    said = story.feedback(interaction, "a", source="grader")
    retract = {"action": "retract", "replaces": f"{interaction}!a"}
    vain = story.feedback(interaction, "retract-a", **retract)
    good = story.feedback(interaction, "retract-a", source="grader", **retract)
    again = story.feedback(interaction, "retract-a", source="grader", **retract)
    assert story.end().outcomes() == {
        **{said: "withdrawn", vain: "no_target"},
        **{good: "applied", again: "duplicate"},
    }
