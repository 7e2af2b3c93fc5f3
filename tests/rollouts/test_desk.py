"""The desk: never more than its share, groups whole, live traffic first."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.rollouts.desk import STALE_MS, Ask, Desk, Group
from services.rollouts.share import SETTLED_MS, Load, allowed, load_of
from tests.rollouts.scene import NOW_MS, a_benchmark, a_desk, an_answer

IDLE = Load(0, 0)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return a_desk(a_benchmark(tmp_path / "sums"))


def test_the_share_is_of_what_live_traffic_leaves() -> None:
    assert allowed(Load(0, 0), 0, share=0.25, slots=64) == 16
    assert allowed(Load(40, 0), 8, share=0.25, slots=64) == 8
    assert allowed(Load(64, 0), 0, share=1.0, slots=64) == 0
    assert allowed(Load(3, 1), 3, share=1.0, slots=64) == 0
    assert allowed(Load(0, 0), 0, share=0.1, slots=30) == 3


def test_vllms_metrics_are_summed_over_its_ranks() -> None:
    text = (
        "# HELP vllm:num_requests_running Number\n"
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="m"} 2.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
        'vllm:inter_token_latency_seconds_count{engine="0"} 10.0\n'
        'vllm:inter_token_latency_seconds_count{engine="1"} 30.0\n'
        'vllm:inter_token_latency_seconds_sum{engine="1"} 2.5\n'
        'vllm:inter_token_latency_seconds_bucket{engine="1",le="0.1"} 7.0\n'
    )
    assert load_of(text) == Load(5, 1, 40, 2.5)
    assert load_of("vllm:num_requests_running 1\n") is None
    assert load_of(text + "vllm:num_requests_waiting NaN\n") is None


def test_nothing_is_sent_before_an_engine_spoke_nor_long_after(desk: Desk) -> None:
    assert not desk.asks(NOW_MS)
    desk.read("e", IDLE, NOW_MS)
    assert not desk.asks(NOW_MS + STALE_MS + 1)
    assert len(desk.asks(NOW_MS + STALE_MS)) == 4
    desk.read("e", None, NOW_MS)
    assert desk.allowed("e", NOW_MS) == 0


def test_groups_are_filled_in_order_and_opened_as_there_is_room(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    asks = desk.asks(NOW_MS)
    assert [(ask.number, ask.sample) for ask in asks] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert desk.answered(asks[1], an_answer()) is None
    assert [(a.number, a.sample) for a in desk.asks(NOW_MS)] == [(1, 1)]


def test_no_group_is_opened_while_a_whole_one_is_not_acknowledged(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    first = desk.asks(NOW_MS)[:3]
    group = [desk.answered(ask, an_answer()) for ask in first][-1]
    assert group is not None and group.number == 0
    assert {ask.number for ask in desk.asks(NOW_MS)} == {1}
    desk.acknowledged(0)
    assert {ask.number for ask in desk.asks(NOW_MS)} == {2}


def test_ours_are_not_taken_for_live_ones_once_they_are_settled(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    assert len(desk.asks(NOW_MS)) == 4
    # Just sent, they may be counted or not: at worst they are live.
    desk.read("e", Load(4, 0), NOW_MS + 10)
    assert desk.allowed("e", NOW_MS + 20) == 2
    later = NOW_MS + SETTLED_MS
    desk.read("e", Load(4, 0), later)
    assert desk.allowed("e", later) == 4


def test_ours_make_room_where_live_requests_wait_for_longer_than_a_swap(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    asks = desk.asks(NOW_MS)
    desk.read("e", Load(8, 2), NOW_MS + 1)
    assert not desk.yields()
    desk.read("e", Load(8, 2), NOW_MS + 2)
    assert desk.yields() == [asks[3], asks[2]]  # the newest, as many as wait
    assert not desk.yields()
    desk.returned(asks[3])
    desk.returned(asks[2])
    desk.read("e", IDLE, NOW_MS + 3)
    assert [(a.number, a.sample) for a in desk.asks(NOW_MS + 3)] == [(0, 2), (1, 0)]


def test_waiting_of_ours_alone_is_no_reason_to_yield(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    assert len(desk.asks(NOW_MS)) == 4
    for _ in range(4):
        desk.read("e", Load(1, 3), NOW_MS)
        assert not desk.yields()


def test_what_breaks_is_asked_again_and_then_its_group_is_dropped(desk: Desk) -> None:
    desk.read("e", IDLE, NOW_MS)
    asks = desk.asks(NOW_MS)
    assert not desk.broke(asks[0], final=False)
    again = desk.asks(NOW_MS)
    assert again == [asks[0]]
    assert not desk.broke(again[0], final=False)
    assert desk.broke(desk.asks(NOW_MS)[0], final=False)
    desk.drop(0, NOW_MS)
    assert desk.yields() == asks[1:3]  # the rest of it is broken off
    assert desk.answered(asks[1], an_answer()) is None
    desk.returned(asks[2])
    assert {ask.number for ask in desk.asks(NOW_MS)} == {1}
    assert not desk.broke(asks[3], final=False)


def test_drops_in_a_row_hold_new_groups_up(tmp_path: Path) -> None:
    desk = a_desk(a_benchmark(tmp_path / "sums"), slots=6)  # room for one group
    at_ms = NOW_MS
    for number, pause_ms in enumerate((1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000)):
        desk.read("e", IDLE, at_ms)
        asks = desk.asks(at_ms)
        assert {ask.number for ask in asks} == {number}
        assert desk.broke(asks[0], final=True)
        desk.drop(number, at_ms)
        for ask in desk.yields():
            desk.returned(ask)
        at_ms += pause_ms - 1
        desk.read("e", IDLE, at_ms)
        assert not desk.asks(at_ms)
        at_ms += 1


def test_groups_that_drop_together_make_one_pause(tmp_path: Path) -> None:
    desk = a_desk(a_benchmark(tmp_path / "sums"), slots=36)
    desk.read("e", IDLE, NOW_MS)
    for number in sorted({ask.number for ask in desk.asks(NOW_MS)}):
        desk.drop(number, NOW_MS)
    for ask in desk.yields():
        desk.returned(ask)
    desk.read("e", IDLE, NOW_MS + 1_000)
    assert desk.asks(NOW_MS + 1_000)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["read", "ask", "answer", "break", "return", "yield", "acknowledge", "live", "wait"]
        ),
        st.integers(0, 40),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(actions=ACTIONS, share=st.floats(0.05, 1.0), slots=st.integers(1, 24))
def test_the_share_is_never_exceeded_and_groups_come_whole(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[tuple[str, int]],
    share: float,
    slots: int,
) -> None:
    """Whatever the order. vLLM counts what is there when it is asked: all that is live, and of ours
    anything between those that it must have and those that it may have."""
    folder = tmp_path_factory.getbasetemp() / "desk"
    desk = a_desk(a_benchmark(folder), share=share, slots=slots, group_size=2)
    now_ms, live, bound = NOW_MS, 0, 0
    flying: dict[Ask, int] = {}
    whole: list[Group] = []
    ended: set[int] = set()

    for action, n in actions:
        now_ms += n * 20
        if action == "live":
            live = n % (slots + 4)
        elif action == "read":
            settled = sum(since <= now_ms - SETTLED_MS for since in flying.values())
            counted = settled + n % (len(flying) - settled + 1)
            running = min(slots, live + counted)
            desk.read("e", Load(running, live + counted - running), now_ms)
            bound = int(share * max(0, slots - live) + 1e-9)
        elif action == "ask":
            for ask in desk.asks(now_ms):
                assert ask not in flying and ask.number not in ended
                flying[ask] = now_ms
                assert len(flying) <= bound
        elif action == "yield":
            for ask in desk.yields():
                desk.returned(ask)
                del flying[ask]
        elif action == "acknowledge" and whole:
            group = whole.pop(n % len(whole))
            desk.acknowledged(group.number)
            ended.add(group.number)
        elif flying and action in ("answer", "break", "return"):
            ask = list(flying)[n % len(flying)]
            del flying[ask]
            if action == "answer":
                group = desk.answered(ask, an_answer())
                if group is not None:
                    assert None not in group.answers and len(group.answers) == 2
                    whole.append(group)
            elif action == "return":
                desk.returned(ask)
            elif desk.broke(ask, final=n % 2 == 0):
                desk.drop(ask.number, now_ms)
                ended.add(ask.number)
        assert desk.in_flight("e") == len(flying)
    assert not {group.number for group in whole} & ended
