"""Killed at any step, a restart goes on: groups come whole, and no id has two contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.rollouts.book import Book
from tailrace import topics
from tailrace.errors import SettingsError
from tailrace.log.memory import MemoryLog
from tests.gateway.fakevllm import Served, wait_until
from tests.rollouts.fakeengine import FakeEngine
from tests.rollouts.scene import line, write
from tests.rollouts.stage import Stage


class Killed(Exception):
    """At a numbered step."""


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_kill_at_any_step_costs_nothing_and_counts_nothing_twice(
    tmp_path: Path, step: int
) -> None:
    engine = FakeEngine()
    served = Served(engine.app)
    # Samples of 17 texts: an answer made again would be another one.
    engine.texts = [str(number) for number in range(17)]
    tasks = [write(tmp_path / "sums", [line(n) for n in range(3)])]
    stage = Stage(tmp_path, MemoryLog(), served.url, tasks)
    passed = 0

    def reached(now: int) -> None:
        nonlocal passed
        passed += now == step
        if passed == 3 and now == step:
            raise Killed

    try:
        with stage.running(reached):
            wait_until(lambda: stage.errors, "the kill")
        assert isinstance(stage.errors.pop(), Killed)
        before = {group for group, members in stage.groups().items() if len(members) == 2}
        with stage.running():
            wait_until(lambda: len(stage.groups().keys() - before) >= 3, "three more groups")
    finally:
        served.stop()
    assert not stage.errors
    contents: dict[str, Any] = {}
    for topic, name in (
        (topics.PROMPTS, "interaction_id"),
        (topics.OUTPUTS, "interaction_id"),
        (topics.FEEDBACK, "feedback_id"),
    ):
        for record in stage.records(topic):
            key = f"{topic.name}/{getattr(record, name)}"
            assert contents.setdefault(key, record) == record, "one id, two contents"
    numbers = sorted(int(group.rpartition(".")[2]) for group in stage.groups())
    assert numbers == list(range(len(numbers))), "a number was skipped"
    for members in stage.groups().values():
        assert len({member.interaction_id for member in members}) == 2
    of_each = [sum(key.startswith(topic) for key in contents) for topic in ("p", "o", "f")]
    assert len({*of_each}) == 1 and of_each[0] == 2 * len(numbers)


def test_a_book_says_what_was_used_and_whose_it_is(tmp_path: Path) -> None:
    book = Book(tmp_path)
    identity = book.identity
    book.finish(1)
    book.keep(2, [])
    assert [number in book for number in range(4)] == [False, True, True, False]
    book.close()
    book = Book(tmp_path)
    assert book.identity == identity and list(book.kept) == [2]
    book.finish(0)
    book.finish(2)
    assert [number in book for number in range(4)] == [True, True, True, False]
    with pytest.raises(SettingsError, match="another process"):
        Book(tmp_path)
    book.close()
    assert Book(tmp_path / "other").identity != identity
    (tmp_path / "book.msgpack").write_bytes(b"\xc1")
    with pytest.raises(SettingsError, match=r"book\.msgpack"):
        Book(tmp_path)
