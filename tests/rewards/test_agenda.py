"""Things by time: in order, each once, and no larger than what is wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.rewards.agenda import Agenda


@given(times=st.lists(st.integers(0, 50)), until=st.integers(0, 60))
def test_things_come_in_the_order_of_their_times(times: list[int], until: int) -> None:
    agenda: Agenda[int] = Agenda(lambda what: True)
    for number, time_ms in enumerate(times):
        agenda.add(time_ms, number)
    first = list(agenda.before(until))
    assert first == sorted((n for n, t in enumerate(times) if t < until), key=times.__getitem__)
    assert [*first, *agenda.before(100)] == sorted(range(len(times)), key=times.__getitem__)
    assert len(agenda) == 0


def test_what_is_not_wanted_is_dropped_and_the_rest_is_given() -> None:
    wanted = set(range(0, 100_000, 100))
    agenda: Agenda[int] = Agenda(wanted.__contains__)
    largest = 0
    for number in range(100_000):
        agenda.add(100_000 - number, number)
        largest = max(largest, len(agenda))
    assert largest < 2 * len(wanted) + 2000
    assert wanted <= set(agenda.before(200_000))
