"""What ``why`` and the dashboard's search list is always in one order."""

from __future__ import annotations

from collections import Counter
import random

from hypothesis import given
from hypothesis import strategies as st
import msgspec

from services.dashboard.recent import Query, Recent
from services.dashboard.settings import Settings
from tailrace import events, ids, topics
from tailrace.reading import read
from tests.cli.river import BEGAN_MS, River

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12, unique=True
)
"""Session and the second of each interaction."""


def prompt(session: int, second: int) -> tuple[events.Prompt, int]:
    """One, and when it was appended."""
    time_ms = BEGAN_MS + second * 1000
    interaction = ids.new_interaction(f"acme:s{session}", time_ms, chance=session)
    record = events.Prompt(
        interaction_id=interaction,
        session_id=ids.session_of(interaction),
        event_time_ms=time_ms,
    )
    return record, time_ms


@given(ARRIVALS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_search_finds_the_newest_first_however_partitions_were_read(
    arrivals: list[tuple[int, int]], limit: int, chance: random.Random
) -> None:
    asked = [prompt(*arrival) for arrival in arrivals]
    chance.shuffle(asked)
    recent = Recent(Settings(), Counter())
    for record, time_ms in asked:
        recent.prompt(record, time_ms)
    in_order = sorted(((ms, one.interaction_id) for one, ms in asked), reverse=True)
    results = recent.search(Query(limit=limit))
    found = [(one.time_ms, one.interaction_id) for one in results.found]
    assert found == in_order[:limit]
    assert results.more == (len(asked) > limit)
    assert results.since_ms == in_order[-1][0]


def test_feedback_terms_and_decisions_are_in_the_order_of_the_log(river: River) -> None:
    river.train(0)
    turn = river.ask("a", "b")
    said = [river.say(turn, token, token != "a") for token in "cab"]
    river.settle()
    river.train(1, 0)
    found = river.turn(turn)
    assert [heard.record.feedback_id for heard in found.feedback] == said
    (revision,) = found.revisions
    assert [term.name for term in revision.components] == ["thumbs", "solved"]
    assert msgspec.json.encode(river.turn(turn)) == msgspec.json.encode(found)


def test_movers_are_by_advantage_and_equal_ones_as_the_ledger_has_them(river: River) -> None:
    river.train(0)
    turns = [river.ask(str(n), "b", session=f"acme:s{n}") for n in range(14)]
    for number, turn in enumerate(turns):
        river.say(turn, "a", number % 2 == 0)
    river.settle()
    river.train(1, 0)
    found = river.weights(1)
    (step,) = [event for event in steps(river) if event.version == 1]
    ledger = [one.offset for one in step.inputs]
    assert len({abs(mover.advantage.value) for mover in found.movers}) == 1
    assert [mover.offset for mover in found.movers] == ledger[:10]


def steps(river: River) -> list[events.Step]:
    return [event for _, event in read("steps", log=river.log)]  # type: ignore[misc]


def test_ranges_are_by_partition(river: River) -> None:
    ranges = [events.Range(partition=p, start=0, end=p) for p in (2, 0, 1)]
    manifest = events.ModelUpdate(
        model=river.common.model,
        version=0,
        created_ms=river.now_ms,
        kind="keyframe",
        digest="0" * 64,
        ranges=ranges,
    )
    river.writer.write(topics.MODEL_UPDATES, manifest)
    assert [one.partition for one in river.weights(0).ranges] == [0, 1, 2]
