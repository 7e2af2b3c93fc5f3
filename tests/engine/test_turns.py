"""Engines take turns: their pauses do not overlap while acks flow, and no wait is longer than its
slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import msgspec

from services.engine.turns import Turns
from tailrace.events import ModelAck

SLOT_S = 2.0
TICK_S = 0.02


def ack(engine: str, version: int, state: str = "applied") -> ModelAck:
    return ModelAck(engine=engine, version=version, state=state, event_time_ms=0)


class Sim(msgspec.Struct):
    """One engine of a fleet: how late it sees versions, how long it pauses, when its ack is
    heard."""

    turns: Turns
    name: str
    sees_s: float
    pause_s: float
    heard_s: float
    dies_s: float = float("inf")
    served: int = 0
    loading: int | None = None
    ready_s: float = 0.0
    wants_since: float | None = None


def run(fleet: list[Sim], versions: list[float], until_s: float) -> tuple[list, list[float]]:
    """(pauses as (start, end, version, engine), waits in seconds) of a fleet, version N coming at
    ``versions[N - 1]``. Everybody was heard just before."""
    acks = [(0.0, ack(e.name, 0, "serving")) for e in fleet]
    told = 0
    pauses, waits = [], []
    now = 0.0
    while now < until_s:
        acks.sort(key=lambda item: item[0])
        while told < len(acks) and acks[told][0] <= now:
            for engine in fleet:
                engine.turns.hear(acks[told][1], int(acks[told][0] * 1000))
            told += 1
        for e in fleet:
            if now >= e.dies_s:
                continue
            if e.loading is not None and now >= e.ready_s:
                e.served, e.loading = e.loading, None
                acks.append((now + e.heard_s, ack(e.name, e.served)))
            if e.loading is None:
                target = sum(at + e.sees_s <= now for at in versions)
                if target == e.served:
                    e.turns.rest()
                    e.wants_since = None
                    continue
                e.wants_since = now if e.wants_since is None else e.wants_since
                if e.turns.mine(target, now):
                    waits.append(now - e.wants_since)
                    e.wants_since = None
                    e.loading, e.ready_s = target, now + e.pause_s
                    pauses.append((now, e.ready_s, target, e.name))
        now += TICK_S
    return pauses, waits


def fleet_of(drawn: list[tuple[float, float, float]]) -> list[Sim]:
    names = [f"engine-{n}" for n in range(len(drawn))]
    return [
        Sim(Turns(name, slot_s=SLOT_S), name, *one) for name, one in zip(names, drawn, strict=True)
    ]


seconds = st.floats(0.02, 0.6)
fleets = st.lists(st.tuples(seconds, seconds, seconds), min_size=2, max_size=4)


@given(fleets, st.integers(1, 3))
def test_pauses_do_not_overlap_while_acks_flow(
    drawn: list[tuple[float, float, float]], count: int
) -> None:
    apart_s = 2.0 * len(drawn)
    versions = [1.0 + n * apart_s for n in range(count)]
    pauses, waits = run(fleet_of(drawn), versions, versions[-1] + apart_s)
    assert len(pauses) == len(drawn) * count, "every engine served every version"
    for one, other in zip(pauses, pauses[1:], strict=False):
        assert one[1] <= other[0], "two at once"
    assert all(wait <= SLOT_S * (len(drawn) - 1) for wait in waits)


@given(
    fleets,
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=6),
    st.lists(st.one_of(st.none(), st.floats(0.0, 6.0)), min_size=4, max_size=4),
    st.floats(0.0, 10.0),
)
def test_no_wait_is_longer_than_its_slots(
    drawn: list[tuple[float, float, float]],
    gaps: list[float],
    deaths: list[float | None],
    lost_s: float,
) -> None:
    fleet = fleet_of(drawn)
    for engine, death in zip(fleet, deaths, strict=False):
        engine.dies_s = float("inf") if death is None else death
        engine.heard_s += lost_s
    versions = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    slots_s = SLOT_S * (len(fleet) - 1)
    pauses, waits = run(fleet, versions, versions[-1] + slots_s + 2)
    assert all(wait <= slots_s + 2 * TICK_S for wait in waits)
    alive = {engine.name for engine in fleet if engine.dies_s == float("inf")}
    last = {name for _, _, version, name in pauses if version == len(versions)}
    assert alive <= last, "whoever lives serves the newest in the end"


def test_a_dead_engine_costs_one_slot_and_then_nothing() -> None:
    turns = Turns("b")
    turns.hear(ack("a", 0, "serving"), 0)
    assert not turns.mine(1, 10.0) and not turns.mine(1, 11.9) and turns.mine(1, 12.0)
    turns.rest()
    assert turns.mine(2, 20.0), "it let a slot pass and was not heard since"
    turns.rest()
    turns.hear(ack("a", 2), 1000)
    assert not turns.mine(3, 30.0), "it is back"
    turns.hear(ack("a", 3), 2000)
    assert turns.mine(3, 30.5)


def test_an_engine_that_is_long_gone_is_not_waited_for() -> None:
    turns = Turns("b", silent_s=90)
    turns.hear(ack("a", 0, "serving"), 0)
    turns.hear(ack("b", 0, "serving"), 90_001)
    assert turns.mine(1, 10.0)


def test_a_refusal_is_an_answer_and_an_old_one_is_none() -> None:
    turns = Turns("b")
    turns.hear(ack("a", 4), 0)
    assert not turns.mine(5, 0.0)
    turns.hear(ack("a", 5, "refused"), 1)
    turns.hear(ack("a", 4), 2)
    assert turns.mine(5, 0.1)
    turns.rest()
    assert turns.mine(4, 1.0), "a pin to what it serves"
    turns.rest()
    turns.hear(ack("a", 6), 3)
    assert not turns.mine(4, 2.0), "it answered for 4 before, but serves 6 now"


def test_the_first_in_line_and_one_alone_wait_for_nobody() -> None:
    turns = Turns("a")
    assert turns.mine(1, 0.0)
    turns.rest()
    turns.hear(ack("b", 0, "serving"), 0)
    turns.hear(ack("a", 1), 0)
    assert turns.mine(2, 1.0)


def test_versions_that_follow_each_other_fast_starve_nobody() -> None:
    turns = Turns("b")
    turns.hear(ack("a", 0, "serving"), 0)
    asked = [turns.mine(version, version * 0.5) for version in range(1, 6)]
    assert asked == [False, False, False, False, True]
