"""The join is a function of the log, not of interleaving or kills; it conserves feedback."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tailrace import ids
from tests.rewards.history import HOUR_MS, History, interaction_of, read_in_order, read_wildly

SPEC = Spec(
    wait_s=3,
    orphan_s=8,
    horizon_s=60,
    metrics={"thumbs": Metric(), "rating": Metric(aggregate="mean"), "done": Metric(final=True)},
)
OUTCOMES = {
    *("joined", "corrected", "late", "orphan", "replaced", "withdrawn", "duplicate", "conflict"),
    *("invalid", "foreign", "unconsented", "applied", "no_target"),
}


def make(seed: int, length: int) -> History:
    """A history with everything in it that may happen."""
    chance = random.Random(seed)
    history = History()
    turns: list[str] = []
    missing: list[tuple[str, str]] = []
    given: list[tuple[str, str]] = []
    for number in range(length):
        action = chance.random()
        if action < 0.22 or not turns:
            session = f"default:s{chance.randrange(3)}"
            interaction = interaction_of(session, history.now_ms, number)
            turns.append(interaction)
            parts = [
                ("prompt", interaction),
                *(("output", interaction),) * chance.choice((1, 1, 2)),
            ]
            chance.shuffle(parts)
            for part in parts:
                if chance.random() < 0.75:
                    add_part(history, part, chance)
                else:
                    missing.append(part)
        elif action < 0.3 and missing:
            add_part(history, missing.pop(chance.randrange(len(missing))), chance)
        elif action < 0.62:
            add_feedback(history, turns, given, number, chance)
        elif action < 0.66:
            history.hole(chance.choice(("prompts", "outputs", "feedback")))
        elif action < 0.67:
            history.wait(chance.choice((10, 70, 4 * HOUR_MS / 1000)))
        else:
            history.tick(chance.choice((0, 0, 0, 1500)), first=chance.random() < 0.15)
        history.wait(chance.choice((0, 0, 0.001, 0.2, 0.7, 1.5)))
    history.settle(SPEC)
    return history


def add_part(history: History, part: tuple[str, str], chance: random.Random) -> None:
    what, interaction = part
    if what == "prompt":
        learn, group = chance.random() < 0.85, "g" if chance.random() < 0.15 else None
        history.prompt(interaction, learn=learn, group_id=group)
    else:
        history.output(interaction, choice=chance.choice((0, 0, 0, 1)))


def add_feedback(
    history: History,
    turns: list[str],
    given: list[tuple[str, str]],
    number: int,
    chance: random.Random,
) -> None:
    subject = chance.choice(turns[-4:])
    if chance.random() < 0.2:
        subject = ids.session_of(subject)
    elif chance.random() < 0.07:
        subject = interaction_of("default:gone", history.now_ms, number)
    draw, token = chance.random(), f"f{number}"
    refused = chance.random() < 0.04
    fields: dict[str, object] = {
        "boolean": chance.random() < 0.5,
        "choice": chance.choice((0, 0, 1)),
    }
    if not ids.is_interaction(subject):
        fields["choice"] = 0
    if draw < 0.25 and given:
        other, named = chance.choice(given[-6:])
        action = chance.choice(("retract", "set"))
        if action == "retract":
            fields = {"action": "retract"}
        history.feedback(other, token, refused, replaces=f"{other}!{named}", **fields)
        given.append((other, token))
        return
    if draw < 0.35 and given:
        other, token = chance.choice(given[-6:])
        history.feedback(other, token, refused, **fields)
        return
    if draw < 0.4:
        fields = {"kind": "number", "boolean": None, "number": float("nan")}
    elif draw < 0.43:
        fields["tenant"] = "other"
    elif draw < 0.5:
        fields["metric"] = "done"
    elif draw < 0.55:
        fields |= {"kind": "number", "metric": "rating", "boolean": None, "number": 0.5}
    tenant = fields.pop("tenant", None)
    if tenant is not None:
        fields["preferred_over"] = "other:s~0000000000000"
    history.feedback(subject, token, refused, **fields)
    given.append((subject, token))


@pytest.mark.parametrize("late", ["correct", "drop"])
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(5, 90), way=st.integers(0, 2**32))
def test_any_way_of_reading_gives_the_same(late: str, seed: int, length: int, way: int) -> None:
    import msgspec

    spec = msgspec.structs.replace(SPEC, late=late)
    history = make(seed, length)
    plain = read_in_order(history, spec).result
    wild = read_wildly(history, spec, random.Random(way)).result
    assert plain.trajectories == wild.trajectories
    assert plain.receipts == wild.receipts
    assert plain.dead == wild.dead


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(5, 90))
def test_every_feedback_record_has_one_outcome(seed: int, length: int) -> None:
    history = make(seed, length)
    reader = read_in_order(history, SPEC)
    outcomes = reader.result.outcomes()
    records = {i.record.offset for i in history.logs["feedback"] if i is not None}
    assert set(outcomes) == records
    assert set(outcomes.values()) <= OUTCOMES
    assert not reader.join._memory.unsettled
    for one in reader.result.revisions():
        joined = {r for r in one.feedback_ids}
        assert len(joined) == len(one.feedback_ids)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(5, 60), way=st.integers(0, 2**32))
def test_nothing_is_kept_past_the_horizon(seed: int, length: int, way: int) -> None:
    history = make(seed, length)
    history.wait(80 * HOUR_MS / 1000)
    history.tick()
    history.wait(1)
    history.tick()
    reader = read_wildly(history, SPEC, random.Random(way))
    for _ in range(3):  # ticks that find everything committed
        history.tick()
        history.wait(1)
        reader.step("ticks")
        reader.commit(lambda low, high: high)
    assert reader.table.values == {}
    memory = reader.join._memory
    kept = vars(memory) | vars(memory.account)
    kept |= {"refused": reader.join._refused, "verdicts": reader.join._ticks.verdicts}
    indexes = {name for name, index in kept.items() if isinstance(index, (dict, set, list))}
    assert {"sessions", "dirty", "_by_id", "_due", "_expiry"} <= indexes
    assert {name for name in indexes if kept[name]} == set()
