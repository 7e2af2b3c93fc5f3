"""services.drift.bank: a shift is found, a steady stream is not, and pickling changes nothing."""

from __future__ import annotations

import math
import pickle
import random

import pytest

from services.drift.bank import Bank
from services.drift.streams import ANSWER_LENGTH, BEHAVIOUR_LOGPROB, REWARD, THUMBS_DOWN
from tailrace.events import Alarm, Coordinates

SEEDS = range(6)


def feed(bank: Bank, stream: str, values) -> list[Alarm]:
    alarms = []
    for offset, value in enumerate(values):
        source = Coordinates(topic="t", partition=0, offset=offset)
        alarms += bank.observe(stream, value, 1000 + offset, source)
    return alarms


STEADY = {
    "a reward of 0 and 1": (REWARD, lambda chance: float(chance.random() < 0.3)),
    "a reward of -1, 0 and 1": (REWARD, lambda chance: chance.choice([-1.0, 0.0, 1.0, 1.0])),
    "a rare reward": (REWARD, lambda chance: float(chance.random() < 0.02)),
    "a noisy reward": (REWARD, lambda chance: chance.gauss(0.5, 0.2)),
    "lengths, log-normal": (
        ANSWER_LENGTH,
        lambda chance: math.log1p(min(512, int(math.exp(chance.gauss(3.5, 0.8))))),
    ),
    "lengths, geometric": (
        ANSWER_LENGTH,
        lambda chance: math.log1p(1 + int(chance.expovariate(1 / 40))),
    ),
    "logprobs": (BEHAVIOUR_LOGPROB, lambda chance: -abs(chance.gauss(0.6, 0.3))),
    "a constant": (BEHAVIOUR_LOGPROB, lambda chance: -0.5),
    "few thumbs down": (THUMBS_DOWN, lambda chance: float(chance.random() < 0.05)),
    "many thumbs down": (THUMBS_DOWN, lambda chance: float(chance.random() < 0.4)),
}


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_steady_stream_raises_no_alarm(name, seed):
    stream, draw = STEADY[name]
    chance = random.Random(seed)
    assert feed(Bank(), stream, (draw(chance) for _ in range(5000))) == []


SHIFTS = {
    "reward rises": (REWARD, "adwin", (0.1, 0.3), (0.5, 0.3), 300),
    "reward falls": (REWARD, "adwin", (0.5, 0.3), (0.1, 0.3), 300),
    "answers grow by a half": (ANSWER_LENGTH, "adwin", (3.5, 0.5), (3.9, 0.5), 300),
    "the model becomes surer": (BEHAVIOUR_LOGPROB, "adwin", (-0.6, 0.2), (-0.4, 0.2), 300),
    "rewards spread": (REWARD, "adwin_squared_residual", (0.0, 1.0), (0.0, 2.0), 300),
    "logprobs narrow": (BEHAVIOUR_LOGPROB, "adwin_squared_residual", (-1, 0.4), (-1, 0.1), 300),
}


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_shift_is_found_where_it_is_and_cleared_once(name, seed):
    stream, detector, before, after, within = SHIFTS[name]
    chance = random.Random(seed)
    values = [chance.gauss(*before) for _ in range(1000)]
    values += [chance.gauss(*after) for _ in range(3000)]
    alarms = [a for a in feed(Bank(), stream, values) if a.detector == detector]
    assert [a.state for a in alarms[:2]] == ["fired", "cleared"]
    fired, cleared = alarms[:2]
    assert fired.source and cleared.source
    assert 1000 <= fired.source.offset < 1000 + within
    assert cleared.source.offset >= fired.source.offset + 200
    assert fired.event_time_ms == 1000 + fired.source.offset
    assert fired.value is not None and fired.baseline is not None
    if detector == "adwin":
        assert abs(fired.baseline - before[0]) < abs(after[0] - before[0]) / 2
        assert (fired.value > fired.baseline) == (after[0] > before[0])
    assert fired.message and stream in fired.message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("before", "after"), [(0.05, 0.3), (0.2, 0.5), (0.4, 0.8)])
def test_more_thumbs_down_fire_and_fewer_do_not(seed, before, after):
    chance = random.Random(seed)
    values = [float(chance.random() < before) for _ in range(1000)]
    worse = values + [float(chance.random() < after) for _ in range(1000)]
    fired = [a for a in feed(Bank(), THUMBS_DOWN, worse) if a.state == "fired"]
    assert len(fired) == 1
    assert fired[0].source and 1000 <= fired[0].source.offset < 1700
    assert fired[0].value is not None and fired[0].baseline is not None
    assert fired[0].value > fired[0].baseline
    better = values + [float(chance.random() < before / 4) for _ in range(1000)]
    assert feed(Bank(), THUMBS_DOWN, better) == []


def test_a_second_shift_while_firing_does_not_fire_again_but_puts_off_the_all_clear():
    chance = random.Random(1)
    values = [chance.gauss(0, 1) for _ in range(500)]
    values += [chance.gauss(5, 1) for _ in range(100)]
    values += [chance.gauss(-5, 1) for _ in range(1000)]
    alarms = [a for a in feed(Bank(), REWARD, values) if a.detector == "adwin"]
    assert [a.state for a in alarms] == ["fired", "cleared"]
    assert alarms[1].source and alarms[1].source.offset >= 800


@pytest.mark.parametrize("cut", [1, 29, 450, 1001, 1040, 1200])
def test_a_pickled_bank_goes_on_as_if_nothing_had_been(cut):
    def values(seed: int):
        chance = random.Random(seed)
        return [
            *(chance.gauss(0, 1) for _ in range(1000)),
            *(chance.gauss(2, 3) for _ in range(1000)),
        ]

    def alarms(cut: int | None) -> list[Alarm]:
        bank, found = Bank(), []
        for offset, pair in enumerate(zip(values(1), values(2), strict=True)):
            if offset == cut:
                bank = pickle.loads(pickle.dumps(bank))
            for stream, value in zip((REWARD, THUMBS_DOWN), pair, strict=True):
                source = Coordinates(topic=stream, partition=0, offset=offset)
                found += bank.observe(stream, value, offset, source)
        return found

    assert alarms(cut) == alarms(None) != []


def test_streams_do_not_touch_each_other():
    chance = random.Random(3)
    values = [chance.gauss(0 if n < 500 else 3, 1) for n in range(1000)]
    alone = feed(Bank(), REWARD, values)
    bank = Bank()
    for value in values:
        bank.observe(ANSWER_LENGTH, -value, 0, Coordinates())
    assert feed(bank, REWARD, values) == alone
