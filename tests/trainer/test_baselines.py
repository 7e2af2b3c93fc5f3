"""Advantages without a critic: moving means, a regression on the prompt, leave-one-out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from services.trainer.answer import Answer
from services.trainer.baselines import Baselines, moving
from services.trainer.baselines.regression import features

KINDS = ("slice", "global", "regression")


def answer(reward: float, slice: str = "", **fields: Any) -> Answer:
    values: dict[str, Any] = {"prompt": [5, 6, 7], "tokens": [8, 9], "logprobs": [-1.0, -1.0]}
    values |= {"temperature": 1.0, "oldest_version": 0, "closed_ms": 0, "session": "default:s"}
    values |= {"partition": 0, "offset": 0, "time_ms": 0, "trajectory_id": "t", "objective": "tis"}
    return Answer(reward=reward, slice=slice, **(values | fields))


def test_slices_do_not_mix_unless_the_mean_is_global() -> None:
    heard = [answer(1.0, "a"), answer(-1.0, "b")]
    asked = [answer(1.0, "a"), answer(1.0, "b")]
    for kind, expected in (("slice", [0.0, 2.0]), ("global", [1.0, 1.0])):
        baselines = Baselines(kind=kind, decay=0.9)  # type: ignore[arg-type]
        baselines.learn(heard)
        assert baselines.advantages(asked) == expected


def test_a_mean_begins_as_the_plain_one_and_goes_on_as_a_moving_one() -> None:
    means = moving.MovingMeans(decay=0.9)
    means.learn([("", 1.0)])
    means.learn([("", 0.0)])
    assert means.of("") == pytest.approx(0.5)
    for _ in range(50):
        means.learn([("", 0.0)])
    before = means.of("")
    assert before is not None
    means.learn([("", 1.0)])
    assert means.of("") == pytest.approx(before + 0.1 * (1.0 - before))


def test_a_new_slice_is_measured_by_itself() -> None:
    baselines = Baselines(decay=0.9)
    asked = [answer(3.0), answer(1.0), answer(5.0, "x")]
    assert baselines.advantages(asked) == [1.0, -1.0, 0.0]
    assert baselines.state()["means"] == []


def test_slices_without_end_share_one_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MOST_NAMES", 3)
    means = moving.MovingMeans(decay=0.9)
    means.learn([(str(n), float(n)) for n in range(10)])
    assert [means.of(str(n)) for n in (0, 1, 2)] == [0.0, 1.0, 2.0]
    assert means.of("8") == means.of("never seen") is not None
    assert len(means.state()) == 4


def test_a_group_is_measured_by_its_others_and_nothing_else() -> None:
    baselines = Baselines(decay=0.9)
    baselines.learn([answer(100.0)])
    group = [answer(r, group="g") for r in (1.0, 0.0, 0.5)]
    asked = [group[0], answer(101.0), group[1], answer(0.0, group="other"), group[2]]
    assert baselines.advantages(asked) == [0.75, 1.0, -0.75, -100.0, 0.0]
    assert Baselines(decay=0.9, groups=False).advantages(group) == [0.5, -0.5, 0.0]


def test_what_says_nothing_says_so() -> None:
    baselines = Baselines(decay=0.9)
    for asked in ([answer(1.0)], [answer(0.1)] * 7, [answer(0.1, group="g")] * 7):
        assert not any(baselines.advantages(asked))
    assert any(baselines.advantages([answer(1.0), answer(0.9)]))


def test_a_compensation_is_a_difference_and_a_demonstration_is_no_reward() -> None:
    baselines = Baselines(decay=0.9)
    baselines.learn([answer(0.25)])
    before = baselines.state()
    asked = [answer(-1.0, before=1.0), answer(0.0, objective="sft")]
    assert baselines.advantages(asked) == [-2.0, 1.0]
    baselines.learn(asked)
    assert baselines.state() == before


def test_of_a_pair_the_winner_is_pulled_and_the_loser_pushed() -> None:
    pair = [answer(0.0, objective="dpo"), answer(0.0, objective="dpo")]
    assert Baselines(decay=0.9).advantages([*pair, answer(2.0), *pair]) == [1, -1, 0, 1, -1]


def test_the_regression_learns_which_prompts_are_hard() -> None:
    """Of two kinds of prompts in one slice, each is soon measured by its own mean."""
    easy, hard = [1, 2, 3, 50, 51], [1, 2, 3, 60, 61]
    baselines = Baselines(kind="regression", decay=0.9)
    for _ in range(300):
        baselines.learn([answer(1.0, prompt=easy), answer(-1.0, prompt=hard)])
    found = baselines.advantages([answer(1.0, prompt=easy), answer(1.0, prompt=hard)])
    assert found == pytest.approx([0.0, 2.0], abs=0.1)


def test_features_have_length_one_and_do_not_know_the_answer() -> None:
    one, other = answer(1.0, prompt=[7] * 2000), answer(-5.0, prompt=[7] * 2000, tokens=[1])
    assert features(one) == features(other)
    assert sum(value**2 for value in features(one).values()) == pytest.approx(1.0)


def test_river_is_only_loaded_by_who_asks_for_a_regression() -> None:
    program = (
        "import sys; from services.trainer.baselines import Baselines; Baselines(decay=0.9);"
        "assert 'river' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


answers = st.builds(
    answer,
    st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.1]), st.floats(-1e3, 1e3)),
    st.sampled_from(["", "a", "b"]),
    prompt=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    group=st.sampled_from([None, None, "g", "h"]),
    objective=st.sampled_from(["cispo", "kto", "sft", "dpo"]),
    before=st.sampled_from([None, None, None, 0.5]),
)
steps = st.lists(st.lists(answers, min_size=1, max_size=5), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), steps, st.integers(1, 7), st.booleans())
def test_learning_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    kind: Any, steps: list[list[Answer]], break_at: int, as_json: bool
) -> None:
    """Bit for bit, also in the state after it; and every advantage is a number."""
    code = msgspec.json if as_json else msgspec.msgpack
    whole, broken = Baselines(kind=kind, decay=0.9), Baselines(kind=kind, decay=0.9)
    for number, step in enumerate(steps):
        if number == break_at:
            state = code.decode(code.encode(broken.state()))
            broken = Baselines(kind=kind, decay=0.9)
            broken.load(state)
            assert broken.state() == state
        expected = whole.advantages(step)
        assert broken.advantages(step) == expected and len(expected) == len(step)
        assert all(abs(advantage) <= 6e3 for advantage in expected)
        whole.learn(step)
        broken.learn(step)
    assert broken.state() == whole.state()


def test_what_was_chosen_is_desirable_whatever_its_reward() -> None:
    baselines = Baselines(decay=0.9)
    baselines.learn([answer(0.8)])
    asked = [answer(0.2, objective="kto", below=["i/1"]), answer(0.2, objective="kto")]
    assert baselines.advantages(asked) == [1.0, pytest.approx(-0.6)]
