"""Rewards and their parts."""

from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.rewards import score as scoring
from services.rewards.facts import FeedbackFact
from services.rewards.score import Said, Score
from services.rewards.spec import Spec, parse
from services.rewards.terms import Metric, Verifier
from services.rewards.verifiers import Answer, Verifiers


def said(metric: str, **fields: object) -> FeedbackFact:
    return FeedbackFact(offset=0, time_ms=0, feedback_id="x", metric=metric, **fields)  # type: ignore[arg-type]


def score(spec: Spec, answer: Answer, said: list[FeedbackFact]) -> Score:
    return scoring.score(spec, Verifiers(spec.verifiers), answer, [Said(fact) for fact in said])


def verify(verifier: Verifier, answer: Answer) -> tuple[float | None, str | None]:
    return Verifiers({"one": verifier}).verify("one", answer)


def answer(text: str | None = "four 4", **fields: object) -> Answer:
    given = {"tokens": 3, "finish_reason": "stop", "tags": {"answer": "4"}} | fields
    return Answer(text=text, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("aggregate", "reward"),
    [("last", 2.0), ("mean", 3.0), ("min", 1.0), ("max", 6.0), ("sum", 9.0)],
)
def test_aggregation(aggregate: str, reward: float) -> None:
    spec = Spec(metrics={"r": Metric(aggregate=aggregate)})  # type: ignore[arg-type]
    numbers = [said("r", number=n) for n in (1.0, 6.0, 2.0)]
    assert score(spec, answer(), numbers).reward == reward


def test_weights_clip_and_what_is_not_spoken_to() -> None:
    spec = parse(
        "clip = [-1, 0.5]\n[metrics.a]\nweight = 3\nfalse = -1.0\n[metrics.b]\n[metrics.c]\n"
        "categories = { good = 1.0 }\n"
    )
    result = score(spec, answer(), [said("a", boolean=True), said("b", boolean=False)])
    assert result.reward == 0.5  # (3 * 1 + 1 * 0) / 4 = 0.75, clipped
    assert [(c.name, c.value, c.reason) for c in result.components] == [
        ("a", 1.0, None),
        ("b", 0.0, None),
        ("c", None, "no_feedback"),
    ]
    assert score(spec, answer(), [said("c", category="odd")]).components[2].reason == "no_value"
    assert score(spec, answer(), [said("a", boolean=False)]).reward == -1.0


def test_verifiers_speak_beside_metrics_and_alone() -> None:
    spec = parse("[metrics.a]\n[verifiers.f]\nkind = 'finished'\n")
    assert score(spec, answer(), []).reward is None
    assert score(spec, answer(finish_reason="length"), [said("a", boolean=True)]).reward == 0.5
    alone = parse("[verifiers.f]\nkind = 'finished'\n")
    assert score(alone, answer(), []).reward == 1.0
    assert score(alone, answer(finish_reason=None), []).reward is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6))
def test_a_reward_is_finite_or_none(numbers: list[float]) -> None:
    spec = Spec(combine="sum", metrics={"r": Metric(aggregate="sum", weight=1e300)})
    reward = score(spec, answer(), [said("r", number=n) for n in numbers]).reward
    assert reward is None or math.isfinite(reward)


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize(("one", "other"), [(1.7e308, 1.7e308), (1.7e308, -1.7e308)])
def test_the_largest_doubles_are_no_reward(combine: str, one: float, other: float) -> None:
    metric = Metric(weight=10.0) if one != other else Metric()
    spec = Spec(combine=combine, metrics={"a": metric, "b": metric}, clip=(-1, 1))  # type: ignore[arg-type]
    result = score(spec, answer(), [said("a", number=one), said("b", number=other)])
    assert result.reward is None
    assert [c.reason for c in result.components] == ["not_finite", "not_finite"]


CLOSED = {
    "patternProperties": {"^x": {"pattern": "a"}},
    "properties": {"y": True},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("verifier", "text", "verdict"),
    [
        (Verifier(kind="length", max=2), "one two", True),
        (Verifier(kind="length", max=2), "one two three", False),
        (Verifier(kind="length", unit="characters", min=3), "ab", False),
        (Verifier(kind="length", unit="tokens", max=3), None, True),
        (Verifier(kind="regex", pattern="^four"), "four 4", True),
        (Verifier(kind="exact"), " 4 ", True),
        (Verifier(kind="exact"), "four", False),
        (Verifier(kind="numeric"), "it is 1,000 no 4.0", True),
        (Verifier(kind="numeric"), "none", False),
        (Verifier(kind="json_schema", schema={"type": "object"}), "{}", True),
        (Verifier(kind="json_schema", schema={"type": "object"}), "{", False),
        (Verifier(kind="json_schema", schema={"$ref": "http://example.com/x"}), "{}", False),
        (Verifier(kind="json_schema", schema={"type": "number"}), "NaN", False),
        (Verifier(kind="json_schema", schema={"multipleOf": 0.5}), "-Infinity", False),
        (Verifier(kind="json_schema", schema={"multipleOf": 0.5}), "NaN", False),
        (Verifier(kind="json_schema", schema={"multipleOf": 0.5}), "1.5", True),
        (Verifier(kind="json_schema", schema={"uniqueItems": True}), "[1, true, {}, [1]]", True),
        (
            Verifier(kind="json_schema", schema={"uniqueItems": True}),
            '[{"a": 1}, {"a": 1.0}]',
            False,
        ),
        (Verifier(kind="json_schema", schema=CLOSED), '{"x1": "ab", "y": 3}', True),
        (Verifier(kind="json_schema", schema=CLOSED), '{"x1": "cd", "y": 3}', False),
        (Verifier(kind="json_schema", schema=CLOSED), '{"x1": "ab", "z": 3}', False),
        (Verifier(kind="regex", pattern="x"), None, None),
        (Verifier(kind="regex", pattern="x"), "x" * 30_000, None),
    ],
)
def test_verdicts(verifier: Verifier, text: str | None, verdict: bool | None) -> None:
    assert verify(verifier, answer(text))[0] == verdict


@pytest.mark.parametrize(
    "text", ["1e999", pytest.param("[" * 100_000, id="deep"), "1" * 5000, '"\\ud800"']
)
def test_no_answer_breaks_a_verifier(text: str) -> None:
    verifiers = [
        Verifier(kind="json_schema", schema={"multipleOf": 0.1, "pattern": "x"}),
        Verifier(kind="numeric"),
        Verifier(kind="exact"),
        Verifier(kind="regex", pattern="x"),
    ]
    for verifier in verifiers:
        assert verify(verifier, answer(text[:20_000]))[0] in (None, 0.0)


@pytest.mark.parametrize("name", ["default", "enum", "unevaluatedProperties"])
def test_a_property_may_be_named_as_a_keyword(name: str) -> None:
    schema = {"properties": {name: {"pattern": "^a"}}, "patternProperties": {"^b": True}}
    verifier = Verifier(kind="json_schema", schema=schema)
    assert verify(verifier, answer(f'{{"{name}": "abc"}}'))[0] == 1.0
    assert verify(verifier, answer(f'{{"{name}": "xyz"}}'))[0] == 0.0


def test_a_verifier_that_breaks_says_nothing() -> None:
    verifier = Verifier(kind="json_schema", schema={"multipleOf": 0.1})
    assert verify(verifier, answer("1e999")) == (None, "verifier_error")


@pytest.mark.parametrize("pattern", ["(a|a)*b", ".*.*.*x", "(a+)+b", "^(a?){50}a{50}$"])
def test_no_pattern_takes_long(pattern: str) -> None:
    text = "a" * 20_000
    schemas = [
        {"pattern": pattern},
        {"patternProperties": {pattern: True}, "additionalProperties": False},
    ]
    for verifier, said_so in [
        (Verifier(kind="regex", pattern=pattern), text),
        (Verifier(kind="json_schema", schema=schemas[0]), f'"{text[2:]}"'),
        (Verifier(kind="json_schema", schema=schemas[1]), f'{{"{text[10:]}": 1}}'),
    ]:
        check = Verifiers({"one": verifier})
        began_s = time.process_time()
        assert check.verify("one", answer(said_so)) == (0.0, None)
        assert time.process_time() - began_s < 0.05


def test_many_items_are_told_apart_at_once() -> None:
    verifier = Verifier(kind="json_schema", schema={"uniqueItems": True})
    text = "[" + ",".join(f'{{"a":{n}}}' for n in range(1800)) + "]"
    began_s = time.process_time()
    assert verify(verifier, answer(text)) == (1.0, None)
    assert time.process_time() - began_s < 0.5


def test_a_schema_that_branches_at_each_level_takes_no_longer_than_so_many_steps() -> None:
    branch = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    branches = [branch | {"required": ["a", name]} for name in "bc"]
    schema = {"$defs": {"n": {"anyOf": [*branches, {"type": "number"}]}}, "$ref": "#/$defs/n"}
    check = Verifiers({"one": Verifier(kind="json_schema", schema=schema)})
    nested = [answer('{"a":' * depth + "1" + "}" * depth) for depth in (2, 40, 2, 40)]
    began_s = time.process_time()
    said = [check.verify("one", one) for one in nested]
    assert time.process_time() - began_s < 5
    assert said == [(0.0, None), (None, "too_complex")] * 2


def test_a_long_answer_is_checked_whole() -> None:
    one = {"type": "object", "required": ["a"], "additionalProperties": {"type": "number"}}
    verifier = Verifier(kind="json_schema", schema={"items": one, "uniqueItems": True})
    assert verify(verifier, answer(str([{"a": n} for n in range(1500)]).replace("'", '"')))[0] == 1


def test_a_length_may_fall_off_slowly() -> None:
    verifier = Verifier(kind="length", min=2, max=4, slope=4, passed=1.0, failed=-1.0)
    worth = [verify(verifier, answer("word " * n))[0] for n in (1, 2, 4, 5, 6, 8, 30)]
    assert worth == [0.5, 1.0, 1.0, 0.5, 0.0, -1.0, -1.0]


def test_numbers_are_mapped_into_a_range() -> None:
    spec = parse("[metrics.stars]\nrange = [1, 5]\nto = [-1, 1]\naggregate = 'last'\n")
    worth = [
        score(spec, answer(), [said("stars", number=n)]).reward for n in (1, 3, 4, 5, 9, -1e308)
    ]
    assert worth == [-1.0, 0.0, 0.5, 1.0, 1.0, -1.0]
    assert (
        score(parse("[metrics.stars]\nrange = [0, 10]"), answer(), [said("stars", number=5)]).reward
        == 0.5
    )


def test_what_a_text_is_worth() -> None:
    spec = parse("[metrics.note]\ntext = -0.5\n")
    for kind in ("comment", "demonstration"):
        assert score(spec, answer(), [said("note", kind=kind)]).reward == -0.5
    silent = score(parse("[metrics.note]"), answer(), [said("note", kind="comment")])
    assert (silent.reward, silent.components[0].reason) == (None, "no_value")
