"""Scores: the built-in verifiers, and Python in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import threading
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace.checks import finder, within
from tailrace.errors import SettingsError
from tailrace.tasks.benchmark import Task, load
from tailrace.tasks.scoring import Reply, Score, Scorer, request
from tests.gateway.fakevllm import wait_until
from tests.rollouts.scene import write

ASKED = "What is it?"
MANY = "(a*)*" * 20 + "b"


def reply(text: str, expected: Any = None, **given: Any) -> Reply:
    return Reply(task=Task(id="t", prompt=ASKED, expected=expected), text=text, **given)


@contextmanager
def scorer(folder: Path, verifier: str, expected: Any = None, code: str = "") -> Iterator[Scorer]:
    task = {"id": "t", "prompt": ASKED, "expected": expected}
    write(folder / "one", [task], verifier)
    (folder / "one" / "verifier.py").write_text(code)
    with Scorer(load(folder / "one")) as made:
        yield made


CASES: list[tuple[str, Any, dict[str, float]]] = [
    ('kind = "exact"\n', "Paris", {" Paris\n": 1.0, "paris": 0.0, "Paris!": 0.0}),
    ('kind = "exact"\nignore_case = true\n', "Paris", {"PARIS": 1.0, "": 0.0}),
    ('kind = "number"\n', 1200, {"3 and 1,200.": 1.0, "1200 of 7": 0.0, "none": 0.0}),
    ('kind = "number"\ntolerance = 0.5\n', -2, {"-2.5": 1.0, "x = -2.51": 0.0, "2": 0.0}),
    ('kind = "regex"\n', r"^\s*(yes|no)\b", {" yes, it is": 1.0, "oh yes": 0.0}),
    ('kind = "regex"\npattern = "[0-9]{2}"\n', None, {"a 12 b": 1.0, "1 2": 0.0}),
    ('kind = "words"\nmax = 2\nslope = 4\n', None, {"a b": 1.0, "a b c": 0.75, "a " * 9: 0.0}),
    ('kind = "words"\nmin = 1\n', None, {"": 0.0, "a": 1.0}),
]


@pytest.mark.parametrize(("verifier", "expected", "wanted"), CASES)
def test_a_built_in_verifier_says_how_good_an_answer_is(
    tmp_path: Path, verifier: str, expected: Any, wanted: dict[str, float]
) -> None:
    with scorer(tmp_path, verifier, expected) as made:
        scores = made.score([reply(text, expected) for text in wanted])
    assert scores == [Score(number) for number in wanted.values()]


def test_an_answer_that_was_cut_may_be_worth_nothing(tmp_path: Path) -> None:
    with scorer(tmp_path, 'kind = "words"\nmax = 3\nfinished = true\n') as made:
        cut, whole = reply("a b", finish_reason="length"), reply("a b", finish_reason="stop")
        assert made.score([cut, whole]) == [Score(0.0), Score(1.0)]


def test_a_pattern_that_would_take_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        finder("a{999}b{999}")


def test_a_long_answer_has_a_reason_and_a_wild_pattern_no_time(tmp_path: Path) -> None:
    with scorer(tmp_path, 'kind = "regex"\n', MANY) as made:
        began_s = time.monotonic()
        assert made.score([reply("a" * 20_000, MANY)]) == [Score(0.0)]
        assert time.monotonic() - began_s < 5
        assert made.score([reply("a" * 20_001, MANY)]) == [Score(reason="too_long")]
    with pytest.raises(SettingsError, match=r"one: pattern '\(\?=a\)'"):
        with scorer(tmp_path, 'kind = "regex"\n', "(?=a)"):
            pass


@given(
    words=st.integers(0, 60),
    low=st.integers(0, 20),
    more=st.integers(0, 20),
    slope=st.floats(0, 30, allow_subnormal=False),
)
def test_words_cost_the_more_the_further_they_are_beyond(
    words: int, low: int, more: int, slope: float
) -> None:
    most = low + more
    score = within(words, low, most, slope)
    assert 0.0 <= score <= 1.0
    assert (score == 1.0) == (low <= words <= low + more) or slope > 0
    further = max(words, most)
    assert within(further + 1, low, most, slope) <= within(further, low, most, slope)


CODE = """
import os, sys
def reward(prompts, completions, completion_ids, expected, hint, finish_reason, **more):
    print("this must not get among the answers")
    assert sys.stdin.read() == "" and more["id"] == ["t"] * len(prompts)
    said = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    values = {"pid": os.getpid(), "none": None, "nan": float("nan"), "word": "x", "sum": 2 + 2}
    return [values.get(s, len(ids)) for s, ids in zip(said, completion_ids)]
"""


def test_python_is_called_as_trl_does(tmp_path: Path) -> None:
    task = {"id": "t", "messages": [{"role": "user", "content": "x"}], "columns": {"hint": "h"}}
    write(tmp_path / "one", [task], 'kind = "function"\n')
    (tmp_path / "one" / "verifier.py").write_text(CODE)
    one = load(tmp_path / "one")
    chat = Reply(task=one.tasks[0], text="pid")
    texts = ("none", "nan", "word", "sum", "y")
    plain = [reply(text, token_ids=[1, 2]) for text in texts]
    asked = request([chat, *plain])
    assert asked["completions"][:2] == [[{"role": "assistant", "content": "pid"}], "none"]
    assert asked["prompts"][:2] == [[{"role": "user", "content": "x"}], ASKED]
    assert asked["columns"]["hint"] == ["h", None, None, None, None, None]
    with Scorer(one) as made:
        first, *rest = made.score([chat, *plain])
        assert rest == [
            Score(reason="nothing_to_say"),
            Score(reason="not_finite"),
            Score(reason="no_number"),
            Score(4.0),
            Score(2.0),
        ]
        assert first.number != os.getpid()
        assert made.score([chat]) == [first], "one process for all calls"


def test_what_runs_is_what_was_read_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    verifier = 'kind = "function"\ntimeout_s = 1.0\n'
    code = "import time\ndef reward(completions, **more):\n"
    code += "    while completions == ['wait']:\n        time.sleep(1)\n    return [1.0]\n"
    with scorer(tmp_path, verifier, code=code) as made:
        file = tmp_path / "one" / "verifier.py"
        file.write_text("def reward(**more):\n    return [2.0]\n")
        assert made.score([reply("a")]) == [Score(1.0)]
        assert made.score([reply("wait")]) == [Score(reason="timeout")]
        file.unlink()
        assert made.score([reply("a")]) == [Score(1.0)], "the process after it"


FAILING = {
    "raised": "def reward(**more):\n    raise ValueError\n",
    "wrong_length": "def reward(**more):\n    return [1, 2, 3]\n",
    "exited": "import os\ndef reward(**more):\n    os._exit(3)\n",
    "start": "raise SystemExit(1)\ndef reward(**more): ...\n",
    "timeout": "import time\ndef reward(**more):\n    time.sleep(600)\n",
}


@pytest.mark.parametrize("reason", FAILING)
def test_python_that_fails_is_a_reason_and_is_called_again(tmp_path: Path, reason: str) -> None:
    verifier = 'kind = "function"\ntimeout_s = 0.2\n'
    with scorer(tmp_path, verifier, code=FAILING[reason]) as made:
        for _ in range(2):
            assert made.score([reply("a"), reply("b")]) == [Score(reason=reason)] * 2


def test_what_runs_is_ended_from_another_thread(tmp_path: Path) -> None:
    code = "import time, pathlib\ndef reward(**more):\n"
    code += f"    pathlib.Path({str(tmp_path / 'here')!r}).touch()\n    time.sleep(600)\n"
    found: list[list[Score]] = []
    with scorer(tmp_path, 'kind = "function"\ntimeout_s = 60\n', code=code) as made:
        thread = threading.Thread(target=lambda: found.append(made.score([reply("a")])))
        thread.start()
        wait_until((tmp_path / "here").exists, "the call")
        made.kill()
        thread.join(10)
        assert found == [[Score(reason="exited")]]
        assert made.score([reply("a")]) == [Score(reason="closed")]
