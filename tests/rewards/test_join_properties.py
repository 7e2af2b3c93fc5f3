"""The join is a function of the log, not of interleaving or kills; it conserves feedback."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
import pytest

from services.rewards.agenda import Agenda
from services.rewards.spec import Spec
from services.rewards.terms import Implicit, Metric
from tailrace import events, ids
from tests.rewards.history import HOUR_MS, History, interaction_of, read_in_order, read_wildly

SPEC = Spec(
    wait_s=3,
    orphan_s=8,
    horizon_s=60,
    metrics={"thumbs": Metric(), "rating": Metric(aggregate="mean"), "done": Metric(final=True)},
)
WAITS = {
    "thumbs": Metric(wait_s=1, session="discounted", text=0.3),
    "rating": Metric(aggregate="mean", wait_s=6, session="last", range=(0, 2)),
    "done": Metric(final=True, wait_s=0.5),
}
SIGNALS = {"next_turn": Implicit(wait_s=2), "retry": Implicit(seen=-1.0, unseen=0.0)}
SPECS = [
    SPEC,
    replace(SPEC, late="drop", default_reward=0.25),
    replace(SPEC, metrics=WAITS),
    replace(SPEC, metrics=WAITS, implicit=SIGNALS, late="drop", default_reward=-0.5),
    replace(SPEC, implicit=SIGNALS, metrics={"thumbs": Metric(session="last", wait_s=0)}),
    replace(SPEC, metrics={"thumbs": Metric(session="discounted", final=True)}, wait_s=0),
]
WINDOWS = [Spec().max_records, Spec().max_records, 2, 3, 6, 12]
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
    graders = ("one", "two") if seed % 5 == 0 else ("one",)
    for number in range(length):
        action = chance.random()
        if action < 0.22 or not turns:
            session = f"default:s{chance.randrange(3)}"
            began_ms = history.now_ms + chance.choice((0, 0, 0, 0, -2000, 700, 30_000))
            interaction = interaction_of(session, began_ms, number)
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
            add_feedback(history, turns, given, number, graders, chance)
        elif action < 0.66:
            history.hole(chance.choice(("prompts", "outputs", "feedback")))
        elif action < 0.69:
            history.wait(chance.choice((10, 30, 55, 70, 4 * HOUR_MS / 1000, -0.5, -2)))
        else:
            history.tick(chance.choice((0, 0, 0, 1500)), first=chance.random() < 0.15)
        history.wait(chance.choice((0, 0, 0.001, 0.2, 0.7, 1.5)))
    history.settle(max(SPECS, key=lambda spec: spec.longest_wait_ms))
    return history


def add_part(history: History, part: tuple[str, str], chance: random.Random) -> None:
    what, interaction = part
    if what == "prompt":
        learn, group = chance.random() < 0.85, "g" if chance.random() < 0.15 else None
        history.prompt(interaction, learn=learn, group_id=group, asked=chance.choice("abc"))
    else:
        history.output(interaction, choice=chance.choice((0, 0, 0, 1)))


def add_feedback(
    history: History,
    turns: list[str],
    given: list[tuple[str, str]],
    number: int,
    graders: tuple[str, ...],
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
        "source": ("user", "user", "grader", "implicit")[number % 4],
        "grader": graders[number // 4 % len(graders)] if number % 4 == 2 else None,
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
    elif draw < 0.59:
        text = events.FeedbackContent(text=f"better {number}")
        fields |= {"kind": "demonstration", "boolean": None, "content": text}
    elif draw < 0.67:
        session = ids.session_of(subject)
        others = [turn for turn in turns[-8:] if ids.session_of(turn) == session] or turns[-1:]
        over = chance.choice(("0", "1", f"{chance.choice(others)}/1", *others))
        fields |= {"kind": "preference", "boolean": None, "preferred_over": over}
    tenant = fields.pop("tenant", None)
    if tenant is not None:
        fields["preferred_over"] = "other:s~0000000000000"
    history.feedback(subject, token, refused, **fields)
    given.append((subject, token))


specs = st.builds(
    lambda spec, most: replace(spec, max_records=most),
    st.sampled_from(SPECS),
    st.sampled_from(WINDOWS),
)
seeds = st.integers(0, 2**32)


@settings(max_examples=1500, deadline=None)
@given(spec=specs, seed=seeds, length=st.integers(5, 90), way=seeds)
def test_any_way_of_reading_gives_the_same(spec: Spec, seed: int, length: int, way: int) -> None:
    same_either_way(spec, seed, length, way)


@pytest.mark.parametrize(
    ("at", "most", "seed", "length"),
    [
        (0, 2, 110009, 91),
        (0, 200_000, 111428, 148),
        (2, 6, 100479, 124),
        (2, 2, 102102, 127),
        (3, 2, 414, 82),
        (4, 3, 203867, 141),
        (4, 2, 300929, 52),
        (5, 12, 110177, 130),
    ],
)
def test_histories_that_were_once_read_in_two_ways(
    at: int, most: int, seed: int, length: int
) -> None:
    same_either_way(replace(SPECS[at], max_records=most), seed, length, seed + 7)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(spec=specs, seed=seeds, length=st.integers(5, 200), way=seeds)
def test_any_way_of_reading_gives_the_same_for_long(
    spec: Spec, seed: int, length: int, way: int
) -> None:
    same_either_way(spec, seed, length, way)


def same_either_way(spec: Spec, seed: int, length: int, way: int) -> None:
    history = make(seed, length)
    plain = read_in_order(history, spec).result
    wild = read_wildly(history, spec, random.Random(way)).result
    assert plain.trajectories == wild.trajectories
    assert plain.receipts == wild.receipts
    assert plain.dead == wild.dead


@settings(max_examples=300, deadline=None)
@given(spec=specs, seed=seeds, length=st.integers(5, 90))
def test_every_feedback_record_has_one_outcome(spec: Spec, seed: int, length: int) -> None:
    history = make(seed, length)
    reader = read_in_order(history, spec)
    outcomes = reader.result.outcomes()
    records = {i.record.offset for i in history.logs["feedback"] if i is not None}
    assert set(outcomes) == records
    assert set(outcomes.values()) <= OUTCOMES
    assert not reader.join._memory.unsettled
    for one in reader.result.revisions():
        joined = {r for r in one.feedback_ids}
        # An id comes anew after the horizon, or so many records: an answer whose token is ahead of
        # the log may still be there, or one that got them all within a tick.
        assert one.prompt_log_time_ms is not None
        ahead = ids.turn_time_ms(one.interaction_id) > one.prompt_log_time_ms
        assert len(joined) == len(one.feedback_ids) or ahead or spec.max_records < len(records)


@settings(max_examples=100, deadline=None)
@given(spec=specs, seed=seeds, length=st.integers(5, 60), way=seeds)
def test_nothing_is_kept_past_the_horizon(spec: Spec, seed: int, length: int, way: int) -> None:
    history = make(seed, length)
    history.wait(80 * HOUR_MS / 1000)
    history.tick()
    history.wait(1)
    history.tick()
    reader = read_wildly(history, spec, random.Random(way))
    for _ in range(3):  # ticks that find everything committed
        history.tick()
        history.wait(1)
        reader.step("ticks")
        reader.commit(lambda low, high: high)
    assert reader.table.values == {}
    memory = reader.join._memory
    kept = vars(memory) | vars(memory.account)
    kept |= vars(memory.retention) | vars(memory.retention.window)
    kept |= kept.pop("_facts")
    kept.pop("_sessions")
    kept |= {"refused": reader.join._intake.refused, "verdicts": reader.join._ticks.verdicts}
    indexes = {name for name, index in kept.items() if isinstance(index, (dict, set, list, Agenda))}
    assert {"sessions", "dirty", "_by_id", "_due", "_expiry", "_turns", "_ripe"} <= indexes
    assert {name for name in indexes if kept[name]} == set()
