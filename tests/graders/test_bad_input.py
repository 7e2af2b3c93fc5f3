"""Whatever lies on the log: each answer has a word, a reason or a grade, and nothing stops."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import queue
import random
from typing import Any

import pytest

from services.graders.cache import Cache
from services.graders.functions import Functions
from services.graders.grader import Grader
from services.graders.item import Item, Verdict
from services.graders.judge import Judging
from services.graders.spec import Function
from services.graders.worker import Answers
from tailrace import events, ids
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer
from tests.graders.scene import (
    WIRE,
    FakeJudge,
    Room,
    a_judge,
    an_item,
    serving,
    write_function,
)

NASTY = (
    None,
    True,
    10**400,
    float("nan"),
    "",
    "\ud800",
    "\x00",
    "x" * 100_000,
    [],
    {},
    [[]],
    [{"type": "text", "text": 3}, {"type": "text", "text": "a"}, 7],
    {"role": 5, "content": {"a": [None]}},
)


def texts(chance: random.Random) -> Iterator[str | None]:
    """Contents as a broken or a hostile producer makes them."""
    while True:
        inner = chance.choice(NASTY)
        shapes = (inner, [inner], {"content": inner}, [{"role": "user", "content": inner}])
        text = "1" * 5000 if inner == 10**400 else json.dumps(chance.choice(shapes))
        yield chance.choice([text, text, text[: len(text) // 2], "[" * 5000, None])


def test_thousands_of_broken_records_are_all_accounted_for() -> None:
    chance = random.Random(4)
    log = MemoryLog()
    room, answers = Room(log), Answers()
    text = texts(chance)
    for n in range(5000):
        interaction = ids.new_interaction(f"default:s{n}", n)
        learn = chance.choice([True, True, None])
        asked = chance.choice([next(text), '[{"role": "user", "content": "why?"}]'])
        content = events.PromptContent(messages=asked)
        room.ask(interaction, learn=learn, content=content, tags={"prompts": "x", "": "y"})
        output = events.OutputContent(
            message=chance.choice([next(text), '{"content": "so"}']),
            token_ids=chance.choice([None, b"", b"abc", b"abcd"]),
        )
        room.say(interaction, content=output, choice=chance.choice([0, 0, 1, -1, 128, 2**40]))
    producer = log.producer()
    for topic in ("prompts", "outputs"):
        whole = [entry.record.value or b"" for entry in log._partitions(topic)[0].entries]
        for value in chance.sample(whole, 500):
            at = chance.randrange(len(value))
            broken = value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
            producer.append(topic, chance.choice([broken, broken[:at], None]), partition=0)

    class Taking:
        room = 10**6

        def give(self, item: Item) -> None:
            """A function and a judge see the words; here what becomes of them is enough."""
            assert isinstance(item.question, str) and isinstance(item.answer, str)
            answers.put(item, Verdict(0.5))

        def close(self) -> None:
            """Nothing runs."""

    grader = Grader(
        "polite",
        Function(file="x.py", function="reward", metric="polite", max_age_s=float("inf")),
        "0123456789ab",
        Taking(),
        answers,
        log,
        Decoder(log, WIRE),
        Writer(log.producer(), WIRE),
    )
    for _ in range(200):
        grader.step(0.0)
    waiting = len(grader._pairing._waiting)
    left = sum(len(progress._open) for progress in grader._progress.values())
    assert left == waiting, "only outputs whose prompt could not be read are open"
    assert len(room.feedback()) > 200
    assert sum(len(p) for p in grader._pairing._kept.values()) > 4000
    assert waiting < 200


DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
ODD = [
    an_item(question="\ud800", answer="\ud800\x00"),
    an_item(completion={"role": "assistant", "content": DEEP}),
    an_item(completion={"role": "assistant"}, prompt=[]),
    an_item(columns={"prompts": "x", "self": "y", "": None, "a b": "z"}),
    an_item(answer="x" * 1_000_000),
]


@pytest.mark.parametrize("item", ODD, ids=range(len(ODD)))
def test_a_function_is_called_with_anything(item: Item, tmp_path: Path) -> None:
    code = "def reward(completions, **kwargs):\n    return [0.5]\n"
    found: queue.Queue[Any] = queue.Queue()
    worker = Functions(
        "polite",
        Function(file=write_function(tmp_path, code), function="reward"),
        code.encode(),
        Cache(tmp_path / "cache.sqlite", 10),
        lambda item, verdict: found.put(verdict),
        found.put,
    )
    worker.give(item)
    verdict = found.get(timeout=20)
    worker.close()
    assert verdict == Verdict(0.5) or verdict.reason in ("too_deep", "raised")


def test_a_judge_is_asked_with_anything(tmp_path: Path) -> None:
    found: queue.Queue[Any] = queue.Queue()
    with serving(FakeJudge()) as url:
        worker = Judging(
            "helpful",
            a_judge(url=url),
            None,
            Cache(tmp_path / "cache.sqlite", 10),
            lambda item, verdict: found.put(verdict),
            found.put,
        )
        for item in ODD:
            worker.give(item)
        assert [found.get(timeout=20) for _ in ODD] == [Verdict(0.75)] * len(ODD)
        worker.close()
