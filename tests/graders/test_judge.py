"""A judge over HTTP: its number, its failures, its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import queue
from typing import Any

import pytest

from services.graders.cache import Cache
from services.graders.item import Item, Verdict
from services.graders.judge import Judging, asked, score
from tests.graders.scene import FakeJudge, a_judge, an_item, serving

Make = Callable[..., "Bench"]


class Bench:
    """A worker, what it answered and how long it paused."""

    def __init__(self, url: str, tmp_path: Any, key: str | None = None, **given: Any) -> None:
        self.answers: queue.Queue[tuple[Item, Verdict]] = queue.Queue()
        self.crashes: list[BaseException] = []
        self.pauses: list[float] = []

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        self.worker = Judging(
            "helpful",
            a_judge(url=url, **given),
            key,
            Cache(tmp_path / "cache.sqlite", 1000),
            lambda item, verdict: self.answers.put((item, verdict)),
            self.crashes.append,
            pause,
        )

    def grade(self, *items: Item) -> list[Verdict]:
        for item in items:
            self.worker.give(item)
        return [self.answers.get(timeout=20)[1] for _ in items]


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    made = FakeJudge()
    yield made
    made.hangs = False


@pytest.fixture
def bench(judge: FakeJudge, tmp_path: Any) -> Iterator[Make]:
    made: list[Bench] = []
    with serving(judge) as url:

        def make(key: str | None = None, **given: Any) -> Bench:
            made.append(Bench(given.pop("url", url), tmp_path, key, **given))
            return made[-1]

        yield make
        judge.hangs = False
        for one in made:
            one.worker.close()
            assert not one.crashes


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("4", Verdict(0.75)),
        ("1", Verdict(0.0)),
        ("Score: 4.5/5", Verdict(0.875)),
        ("**5**", Verdict(1.0)),
        ("great", Verdict(reason="no_number")),
        ("", Verdict(reason="no_number")),
        ("7 of 10", Verdict(reason="out_of_range")),
        ("-1", Verdict(reason="out_of_range")),
        ("9" * 400, Verdict(reason="out_of_range")),
    ],
)
def test_the_first_number_counts(said: str, verdict: Verdict) -> None:
    assert score(a_judge(), said) == verdict


def test_what_an_answer_says_of_slots_is_left_alone() -> None:
    judge = a_judge(prompt="{question}|{answer}|{other}")
    assert (
        asked(judge, an_item("what {answer}?", "{question}")) == "what {answer}?|{question}|{other}"
    )


def test_it_is_asked_with_the_words_and_the_key(bench: Make, judge: FakeJudge) -> None:
    assert bench(key="k1").grade(an_item("why?", "so")) == [Verdict(0.75)]
    assert judge.asked == ["why? so 1 to 5?"]
    assert judge.keys == ["Bearer k1"]


def test_the_same_words_are_asked_once(bench: Make, judge: FakeJudge) -> None:
    worker = bench(concurrency=8)
    assert worker.grade(*[an_item() for _ in range(8)]) == [Verdict(0.75)] * 8
    judge.say = "1"
    assert worker.grade(an_item()) == [Verdict(0.75)]
    assert len(judge.asked) == 1


def test_a_cache_outlives_its_process(bench: Make, judge: FakeJudge) -> None:
    first = bench()
    assert first.grade(an_item()) == [Verdict(0.75)]
    first.worker.close()
    judge.say = "1"
    assert bench().grade(an_item()) == [Verdict(0.75)]
    assert bench(model="other").grade(an_item()) == [Verdict(0.0)]


def test_no_more_requests_at_once_than_allowed(bench: Make, judge: FakeJudge) -> None:
    judge.gather = 3
    verdicts = bench(concurrency=3).grade(*[an_item(answer=f"a{n}") for n in range(9)])
    assert verdicts == [Verdict(0.75)] * 9
    assert judge.most_at_once == 3


def test_it_is_tried_again_and_retry_after_is_honoured(bench: Make, judge: FakeJudge) -> None:
    judge.refuse = [(503, {}), (429, {"retry-after": "7"}), (500, {}), (408, {})]
    worker = bench(attempts=5)
    assert worker.grade(an_item()) == [Verdict(0.75)]
    assert worker.pauses == [0.5, 7.0, 2.0, 4.0]


def test_it_gives_up_after_its_attempts(bench: Make, judge: FakeJudge) -> None:
    judge.refuse = [(502, {})] * 3
    worker = bench()
    assert worker.grade(an_item()) == [Verdict(reason="status_502")]
    assert worker.grade(an_item()) == [Verdict(0.75)]
    assert len(judge.asked) == 4


def test_what_will_not_get_better_is_not_tried_again(bench: Make, judge: FakeJudge) -> None:
    judge.refuse = [(400, {})]
    assert bench().grade(an_item()) == [Verdict(reason="status_400")]
    assert len(judge.asked) == 1


def test_an_answer_without_a_number_is_a_failure(bench: Make, judge: FakeJudge) -> None:
    judge.say = "rather helpful"
    assert bench().grade(an_item()) == [Verdict(reason="no_number")]


def test_a_judge_that_does_not_answer_is_given_up_in_time(bench: Make, judge: FakeJudge) -> None:
    judge.hangs = True
    worker = bench(timeout_s=1.0, attempts=2)
    assert worker.grade(an_item()) == [Verdict(reason="timeout")]
    assert len(judge.asked) == 2
    judge.hangs = False


def test_a_judge_that_is_not_there_is_a_failure(bench: Make) -> None:
    assert bench(url="http://127.0.0.1:9/v1").grade(an_item()) == [Verdict(reason="unreachable")]


def test_a_worker_that_is_closed_waits_for_nobody(bench: Make, judge: FakeJudge) -> None:
    judge.hangs = True
    worker = bench(timeout_s=600.0)
    worker.worker.give(an_item())
    worker.worker.close()
    assert worker.answers.empty()
