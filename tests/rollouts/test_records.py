"""Records of a group: made again they are the same, and no two groups share an id."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.rollouts import answer, records
from services.rollouts.answer import Answer
from services.rollouts.book import Book, Record
from services.rollouts.desk import Group
from services.rollouts.schedule import Item
from tailrace import events, ids
from tailrace.events import VersionSpan
from tailrace.partition import partition_of
from tailrace.tasks import benchmark
from tailrace.tasks.benchmark import Benchmark
from tailrace.wire import Wire
from tests.rollouts.scene import NOW_MS, a_benchmark, an_answer

WIRE = Wire()


def made(
    one: Benchmark, number: int, texts: list[str], began_ms: int = NOW_MS, identity: str = "a1"
) -> list[Record]:
    answers: list[Answer | None] = [an_answer(text) for text in texts]
    item = Item(one, one.tasks[number % len(one.tasks)])
    group = Group(number, item, began_ms, answers, [0] * len(answers))
    return records.of_group(
        group,
        [float(len(text)) for text in texts],
        tenant="acme",
        identity=identity,
        model="m",
        temperature=0.5,
    )


def names(found: list[Record]) -> set[str]:
    return {
        one.feedback_id if isinstance(one, events.Feedback) else one.interaction_id for one in found
    }


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=2, max_size=6),
    number=st.integers(0, 10**9),
    other=st.integers(0, 10**9),
    began_ms=st.integers(NOW_MS, NOW_MS + 10**12),
)
def test_ids_are_a_function_of_book_group_and_sample(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    number: int,
    other: int,
    began_ms: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "sums"
    one = benchmark.load(folder) if folder.exists() else a_benchmark(folder)
    found = made(one, number, texts, began_ms)
    assert made(one, number, texts, began_ms) == found
    assert len(names(found)) == 2 * len(texts)
    session = f"acme:rollouts.a1.{number}"
    for record in found:
        name = names([record]).pop()
        assert ids.session_of(name) == session and ids.tenant_of(name) == "acme"
        assert partition_of(session.encode(), 12) == partition_of(ids.session_of(name).encode(), 12)
        assert ids.turn_time_ms(name.partition("!")[0]) == began_ms
        assert WIRE.decode(type(record), WIRE.encode(record)) == record
    assert not names(found) & names(made(one, number, texts, began_ms, "a2"))
    if other != number:
        assert not names(found) & names(made(one, other, texts, began_ms))


def test_what_a_book_keeps_is_what_it_was_given(tmp_path: Path) -> None:
    found = made(a_benchmark(tmp_path / "sums"), 4, ["one", "two"])
    book = Book(tmp_path / "book")
    book.keep(4, found)
    book.close()
    again = Book(tmp_path / "book")
    assert again.kept == {4: found}
    again.close()


def test_a_temperature_is_recorded_where_it_is_not_the_default() -> None:
    assert records.recorded(1.0, 8) == {"max_tokens": "8", "n": "1"}
    assert records.recorded(0.5, 8)["temperature"] == "0.5"


FAULTS = {
    "empty": {"token_ids": [], "logprobs": [], "spans": []},
    "unaccounted_tokens": {"logprobs": [-0.5, -9999.0, -0.5]},
    "unknown_version": {"spans": [VersionSpan(version=None, start=0, end=3)]},
}
TORN = [
    [VersionSpan(version=1, start=0, end=2)],
    [VersionSpan(version=1, start=1, end=3)],
    [VersionSpan(version=1, start=0, end=2), VersionSpan(version=2, start=1, end=3)],
]


def test_an_answer_that_does_not_account_for_its_tokens_says_so() -> None:
    assert an_answer().fault() is None
    swapped = [VersionSpan(version=1, start=0, end=1), VersionSpan(version=2, start=1, end=3)]
    assert an_answer(spans=swapped).fault() is None
    for reason, fields in FAULTS.items():
        assert an_answer(**fields).fault() == reason
    for spans in TORN:
        assert an_answer(spans=spans).fault() == "unaccounted_tokens"


KNOWN = {"engine": "e", "prompt_token_ids": [1], "began_ms": 1, "ended_ms": 2}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[", "garbled"),
        (b'{"choices": []}', "garbled: 0 choices"),
        (b'{"choices": [{"finish_reason": "abort"}]}', "ended: abort"),
        (b'{"choices": [{}]}', "ended: None"),
    ],
)
def test_what_is_no_answer_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answer.read(body, **KNOWN)


def test_a_label_that_is_no_number_is_no_version() -> None:
    def read(label: str) -> int | None:
        span = {"version": label, "start": 0, "end": 1}
        choice = {"finish_reason": "stop", "weight_versions": [span], "token_ids": [1]}
        return answer.read(json.dumps({"choices": [choice]}).encode(), **KNOWN).spans[0].version

    assert [read(label) for label in ("12", "default", "", "9" * 30)] == [12, None, None, None]
