"""Each answer has one objective, by kind, age and divergence."""

from __future__ import annotations

from pathlib import Path
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.trainer.answer import Answer, Refusal
from services.trainer.baselines.regression import BUCKETS
from services.trainer.routes import ALREADY, Divergence, Routes
from services.trainer.settings import Settings
from tests.trainer.test_baselines import answer

NEAR = Divergence(ess=0.9, mismatch_kl=0.01)
FAR = Divergence(ess=0.1, mismatch_kl=0.01)
ROUTES = Routes(Settings())


def compensation(revision: Answer, before: float | None, bound: float) -> Answer | Refusal:
    return Routes(Settings(compensation_max=bound)).compensation(revision, before)


def plain(**fields: Any) -> Answer:
    return answer(1.0, objective="", **fields)


@pytest.mark.parametrize(
    ("age", "near", "far"),
    [
        (0, "cispo", "tis"),
        (8, "cispo", "tis"),
        (9, "tis", "kto"),
        (32, "tis", "kto"),
        (33, "kto", "kto"),
        (64, "kto", "kto"),
        (65, Refusal("stale", "age"), Refusal("stale", "age")),
        (None, Refusal("stale", "branch"), Refusal("stale", "branch")),
    ],
)
def test_by_default_age_and_divergence_decide(age: int | None, near: Any, far: Any) -> None:
    assert ROUTES.of(plain(), age, NEAR) == near
    assert ROUTES.of(plain(), age, Divergence()) == near
    assert ROUTES.of(plain(), age, FAR) == far
    assert ROUTES.of(plain(), age, Divergence(ess=0.9, mismatch_kl=0.6)) == far


def test_divergence_is_read_from_the_figures_of_a_step() -> None:
    assert Divergence.of({"ess": 0.5, "mismatch_kl": 0.25, "loss": 1.0}) == Divergence(
        ess=0.5, mismatch_kl=0.25
    )
    assert not ROUTES.diverged(Divergence.of({}))


def test_a_demonstration_has_no_age() -> None:
    for age in (0, 1000, None):
        assert ROUTES.of(answer(0.0, objective="sft"), age, FAR) == "sft"


def test_a_preferred_answer_goes_with_its_rival_or_alone() -> None:
    winner = plain(name="i/0", below=["i/1"])
    loser = plain(name="i/1")
    assert ROUTES.are_pair(winner, loser) and not ROUTES.are_pair(loser, winner)
    assert ROUTES.of(winner, 3, NEAR, paired=True) == ROUTES.of(loser, 3, NEAR, paired=True)
    assert ROUTES.of(winner, 3, NEAR, paired=True) == "dpo"
    assert (ROUTES.of(winner, 3, NEAR), ROUTES.of(loser, 3, NEAR)) == ("kto", "cispo")
    assert ROUTES.of(winner, 65, NEAR, paired=True) == Refusal("stale", "age")
    for other in (
        plain(name="i/1", prompt=[1]),
        plain(name="i/2"),
        plain(name="i/1", before=0.5),
        plain(name="i/1", group="g"),
        answer(0.0, name="i/1", objective="sft"),
    ):
        assert not ROUTES.are_pair(winner, other)
    alone = Routes(Settings(pairs=False))
    assert not alone.are_pair(winner, loser) and alone.of(winner, 3, NEAR) == "cispo"


def test_a_compensation_is_the_difference_within_its_bound() -> None:
    revision = answer(-1.0, objective="")
    found = compensation(revision, 0.5, 2.0)
    assert isinstance(found, Answer) and (found.before, found.reward) == (0.5, -1.0)
    found = compensation(revision, 0.5, 1.0)
    assert isinstance(found, Answer) and (found.before, found.reward) == (0.5, -0.5)
    for before, bound in ((None, 2.0), (0.5, 0.0), (-1.0, 2.0)):
        assert compensation(revision, before, bound) == ALREADY
    assert compensation(answer(0.0, objective="sft"), 0.5, 2.0) == ALREADY


def test_a_compensation_is_only_trained_where_a_difference_means_something() -> None:
    revision = plain(before=0.5, below=["i/1"])
    assert ROUTES.of(revision, 8, NEAR) == "cispo"
    assert ROUTES.of(revision, 9, NEAR) == "tis"
    assert ROUTES.of(revision, 33, NEAR) == ROUTES.of(revision, 9, FAR) == ALREADY
    assert Routes(Settings(old_objective="tis")).of(revision, 33, NEAR) == "tis"


@given(
    st.integers(0, 100) | st.none(),
    st.floats(0, 1) | st.none(),
    st.floats(0, 3) | st.none(),
    st.sampled_from(["", "sft"]),
    st.sampled_from([[], ["i/1"]]),
    st.none() | st.floats(-1, 1),
    st.booleans(),
)
def test_every_answer_has_one_objective_or_one_reason(
    age: int | None,
    ess: float | None,
    mismatch: float | None,
    objective: str,
    below: list[str],
    before: float | None,
    paired: bool,
) -> None:
    """And never a younger route for an older answer."""
    asked = answer(0.0, objective=objective, below=below, before=before)
    divergence = Divergence(ess=ess, mismatch_kl=mismatch)
    found = ROUTES.of(asked, age, divergence, paired=paired)
    assert found in ("cispo", "tis", "kto", "dpo", "sft") or isinstance(found, Refusal)
    order = ["dpo", "sft", "cispo", "tis", "kto", ALREADY, Refusal("stale", "age")]
    if age is not None:
        older = ROUTES.of(asked, age + 1, divergence, paired=paired)
        assert order.index(older) >= order.index(found)


@given(st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.floats(0.1, 3))
def test_differences_add_up_to_what_is_said_in_all(
    first: float, revisions: list[float], bound: float
) -> None:
    level = first
    for said in revisions:
        found = compensation(answer(said, objective=""), level, bound)
        if isinstance(found, Answer):
            assert found.before == level and abs(found.reward - level) <= bound + 1e-12
            level = found.reward
        if abs(said - first) <= bound and len(revisions) == 1:
            assert level == pytest.approx(said)


def test_the_page_names_settings_that_there_are_and_their_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "routing.md").read_text()
    named = set(re.findall(r"`trainer\.(\w+)`", page))
    assert named <= {*Settings.__struct_fields__} and len(named) > 12
    for name, value in re.findall(r"`trainer\.(\w+)` \(`(\w+)`\)", page):
        assert getattr(Settings(), name) == value
    assert f"{BUCKETS} buckets" in page
