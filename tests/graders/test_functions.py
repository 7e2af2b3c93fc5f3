"""Functions as people write them for TRL, and as they go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import queue
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from services.graders.cache import Cache
from services.graders.functions import Functions, request
from services.graders.item import Item, Verdict
from services.graders.spec import Function
from tailrace import ids
from tests.borders.test_imports import ROOT
from tests.gateway.fakevllm import wait_until
from tests.graders.scene import NOW_MS, an_item, write_function

Make = Callable[..., "Bench"]


class Bench:
    """A worker and what it answered."""

    def __init__(self, tmp_path: Any, code: str, **given: Any) -> None:
        spec = Function(file=write_function(tmp_path, code), function="reward", **given)
        self.answers: queue.Queue[tuple[Item, Verdict]] = queue.Queue()
        self.crashes: list[BaseException] = []
        self.worker = Functions(
            "polite",
            spec,
            code.encode(),
            Cache(tmp_path / "cache.sqlite", 1000),
            lambda item, verdict: self.answers.put((item, verdict)),
            self.crashes.append,
        )

    def grade(self, *items: Item) -> list[Verdict]:
        """In the order of the items."""
        for item in items:
            self.worker.give(item)
        found = dict(
            (item.interaction_id, verdict)
            for item, verdict in (self.answers.get(timeout=20) for _ in items)
        )
        return [found[item.interaction_id] for item in items]


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Make]:
    made: list[Bench] = []

    def make(code: str, **given: Any) -> Bench:
        made.append(Bench(tmp_path, code, **given))
        return made[-1]

    yield make
    for one in made:
        one.worker.close()
        assert not one.crashes


def test_a_function_written_for_grpo_runs_unchanged(bench: Make) -> None:
    worker = bench("""
import re

def reward(completions, solution, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    matches = [re.search(r"\\d+", content) for content in contents]
    return [1.0 if m and m[0] == s else 0.0 for m, s in zip(matches, solution)]
""")
    items = [an_item(answer=f"it is {n}", columns={"solution": "2"}) for n in (1, 2)]
    assert worker.grade(*items) == [Verdict(0.0), Verdict(1.0)]


def test_it_is_given_what_trl_gives(bench: Make) -> None:
    worker = bench("""
def reward(prompts, completions, completion_ids, **kwargs):
    assert prompts == [[{"role": "user", "content": "why?"}]], prompts
    assert completions == [[{"role": "assistant", "content": "so"}]], completions
    assert completion_ids == [[1, 2]], completion_ids
    assert kwargs == {"task": ["sums"], "trainer_state": None}, kwargs
    return [1]
""")
    assert worker.grade(an_item(columns={"task": "sums"})) == [Verdict(1.0)]


def test_a_plain_prompt_is_a_string_and_so_is_its_answer() -> None:
    asked = request([an_item(prompt="Once", answer=" upon a time")])
    assert (asked["prompts"], asked["completions"]) == (["Once"], [" upon a time"])


def test_a_column_that_some_lack_is_none_there() -> None:
    asked = request([an_item(columns={"a": "1"}), an_item(columns={"b": "2"})])
    assert asked["columns"] == {"a": ["1", None], "b": [None, "2"]}


def test_only_what_it_takes_where_it_takes_no_more(bench: Make) -> None:
    worker = bench("def reward(completions):\n    return [0.5] * len(completions)\n")
    assert worker.grade(an_item(columns={"task": None})) == [Verdict(0.5)]


def test_a_coroutine_is_awaited(bench: Make) -> None:
    worker = bench("""
import asyncio

async def reward(completions, **kwargs):
    await asyncio.sleep(0)
    return [0.25 for _ in completions]
""")
    assert worker.grade(an_item()) == [Verdict(0.25)]


def test_none_is_nothing_to_say(bench: Make) -> None:
    worker = bench("def reward(**kwargs):\n    return [None]\n")
    assert worker.grade(an_item()) == [Verdict()]


def test_a_module_beside_it_is_found_whatever_its_name(bench: Make, tmp_path: Any) -> None:
    write_function(tmp_path, "WORTH = 0.75\n", "cache.py")
    worker = bench("import cache\ndef reward(**kwargs):\n    return [cache.WORTH]\n")
    assert worker.grade(an_item()) == [Verdict(0.75)]


def test_what_it_prints_is_no_answer(bench: Make) -> None:
    worker = bench("""
import os, sys

def reward(**kwargs):
    print('{"values": [9]}', flush=True)
    os.write(1, b'{"values": [9]}\\n')
    assert sys.stdin.read() == ""
    return [0.5]
""")
    assert worker.grade(an_item(), an_item()) == [Verdict(0.5), Verdict(0.5)]


WRONG = {
    "raised": "raise ValueError('no')",
    "exited": "import os; os._exit(3)",
    "timeout": "import time; time.sleep(600)",
    "wrong_length": "return [1.0, 1.0]",
    "not_finite": "return [float('nan')]",
    "no_number": "return ['0.5']",
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_goes_wrong_has_a_reason_and_the_next_one_is_graded(bench: Make, reason: str) -> None:
    worker = bench(
        f"""
def reward(completions, **kwargs):
    if completions[0][0]["content"] == "bad":
        {WRONG[reason]}
    return [1.0 for _ in completions]
""",
        timeout_s=1.0,
        batch=1,
    )
    verdicts = worker.grade(an_item(answer="bad"), an_item())
    assert verdicts == [Verdict(reason=reason), Verdict(1.0)]


def test_a_function_that_ends_its_process_is_an_exit(bench: Make) -> None:
    worker = bench("import sys\ndef reward(**kwargs):\n    sys.exit(0)\n")
    assert worker.grade(an_item()) == [Verdict(reason="exited")]


def test_one_bad_answer_costs_the_batch_nothing(bench: Make) -> None:
    worker = bench("""
def reward(completions, **kwargs):
    return [1.0 / len(c[0]["content"]) for c in completions]
""")
    first, bad, last = worker.grade(an_item(answer="a"), an_item(answer=""), an_item(answer="ab"))
    assert (first, last) == (Verdict(1.0), Verdict(0.5))
    assert bad == Verdict(reason="raised")


def test_a_file_that_does_not_load_fails_its_answers(bench: Make) -> None:
    worker = bench("import no_such_module\ndef reward(**kwargs):\n    return [1.0]\n")
    assert worker.grade(an_item()) == [Verdict(reason="start")]


def test_the_same_answer_gets_the_same_grade_from_another_process(tmp_path: Any) -> None:
    code = "import os\ndef reward(**kwargs):\n    return [os.getpid()]\n"
    item = an_item()
    other = an_item(interaction_id=ids.new_interaction("default:other", NOW_MS))
    said = []
    for _ in range(2):
        worker = Bench(tmp_path, code)
        said.append(worker.grade(item))
        assert worker.grade(other)
        worker.worker.close()
    assert said[0] == said[1]


def test_a_worker_that_is_closed_kills_what_hangs(bench: Make) -> None:
    worker = bench("import time\ndef reward(**kwargs):\n    time.sleep(600)\n", timeout_s=600.0)
    worker.worker.give(an_item())
    worker.worker.close()
    assert worker.answers.empty()
    assert not worker.worker._thread.is_alive()


ORPHAN = """
import os, signal, sys
from pathlib import Path
from tailrace.functions.calls import Child

child = Child(sys.argv[1], "reward", Path(sys.argv[1]).read_bytes())
request = {"prompts": ["a"], "completions": ["b"], "completion_ids": [[]], "columns": {}}
print(int(child.call(request, 20.0)[0]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_takes_its_function_along(tmp_path: Any) -> None:
    """Also one that hangs, and so does not see that its input ended."""
    code = """
import os, threading, time

def reward(**kwargs):
    threading.Thread(target=time.sleep, args=[600]).start()
    return [os.getpid()]
"""
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, write_function(tmp_path, code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: ended(int(done.stdout)), "the end of the function")


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


LEFT_BEHIND = """
import os, time
def reward(**kwargs):
    if os.fork() == 0:
        os.setsid()
        time.sleep(20)
        os._exit(0)
    time.sleep(600)
"""


def test_a_process_left_behind_does_not_hold_up_a_time_out(bench: Make) -> None:
    worker = bench(LEFT_BEHIND, timeout_s=1.0)
    begun_s = time.monotonic()
    assert worker.grade(an_item()) == [Verdict(reason="timeout")]
    assert time.monotonic() - begun_s < 15
