"""A benchmark's folder: what it says, and what is refused, where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tailrace.errors import SettingsError
from tailrace.tasks.benchmark import load, load_all
from tests.borders.test_imports import ROOT
from tests.rollouts.scene import SUMS, line, write

FUNCTION = 'kind = "function"\n'


def test_a_folder_is_read_as_it_is_written(tmp_path: Path) -> None:
    lines = [
        line(1, columns={"source": "book"}),
        {"id": "two", "prompt": "2 + 1 =", "expected": 3, "split": "heldout"},
    ]
    one = load(write(tmp_path / "sums", lines))
    assert (one.name, one.verifier.kind, one.verifier.metric) == ("sums", "number", "task")
    assert [task.id for task in one.split("train")] == ["t1"]
    (held,) = one.split("heldout")
    assert (held.asked, held.expected) == ("2 + 1 =", 3)
    assert one.tasks[0].asked == [{"role": "user", "content": "What is 1 + 1?"}]


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "sums", [])
    prompts = ["2 + 1 =\u2028", "3 + 1 =\u0085", "4\u2029 + 1 ="]
    lines = [
        json.dumps({"id": f"t{n}", "prompt": prompt, "expected": 3}, ensure_ascii=False)
        for n, prompt in enumerate(prompts)
    ]
    (folder / "tasks.jsonl").write_bytes("\r\n".join(lines).encode())
    assert [task.prompt for task in load(folder).tasks] == prompts
    (folder / "tasks.jsonl").write_bytes("\n".join([*lines, "{"]).encode())
    with pytest.raises(SettingsError, match=r"tasks.jsonl:4: "):
        load(folder)


def test_its_mark_is_its_meaning(tmp_path: Path) -> None:
    def mark(verifier: str, code: str = "def reward(**more): ...\n") -> str:
        folder = write(tmp_path / f"m{len(list(tmp_path.iterdir()))}", [line(1)], verifier)
        (folder / "verifier.py").write_text(code)
        return load(folder).verifier.mark

    assert mark(SUMS) == mark("# said otherwise\n" + SUMS) != mark(SUMS + "tolerance = 0.1\n")
    assert mark(FUNCTION) == mark(FUNCTION) != mark(FUNCTION, "def reward(): ...\n")


def test_its_mark_is_of_what_was_read(tmp_path: Path) -> None:
    code = tmp_path / "sums" / "verifier.py"
    code.parent.mkdir()
    code.write_text("def reward(**more): ...\n")
    one = load(write(code.parent, [line(1)], FUNCTION))
    before = one.verifier.mark
    assert len(before) == 12
    code.write_text("def reward(): ...\n")
    assert one.verifier.mark == before != load(code.parent).verifier.mark
    code.unlink()
    assert one.verifier.mark == before


WRONG: dict[str, tuple[Any, str, str]] = {
    "no task": ([], SUMS, "no task in it"),
    "no JSON": (["{"], SUMS, r"tasks.jsonl:1: "),
    "another key": ([line(1, answer=2)], SUMS, "answer"),
    "an id twice": ([line(1), line(2, id="t1")], SUMS, r":2: id: 't1' is there already"),
    "an id that is none": ([line(1, id="a b")], SUMS, "id: 1-64 of"),
    "both halves": (
        [line(1), line(1, id="x", split="heldout")],
        SUMS,
        r":2: asks what 't1' of the other split asks",
    ),
    "no such half": ([line(1, split="test")], SUMS, "split"),
    "two prompts": ([line(1, prompt="x")], SUMS, "either messages or prompt"),
    "nothing asked": ([line(1, messages=[])], SUMS, "asks nothing"),
    "not the user": (
        [line(1, messages=[{"role": "assistant", "content": "x"}])],
        SUMS,
        "the last one is the user's",
    ),
    "nothing expected": ([line(1, expected=None)], SUMS, "expected: .*needs it"),
    "text, not a number": ([line(1, expected="2")], SUMS, "a number, not text"),
    "a number, not text": ([line(1)], 'kind = "exact"\n', "text, not a number"),
    "a column of ours": ([line(1, columns={"prompts": 1})], SUMS, "prompts is not free"),
    "no such kind": ([line(1)], 'kind = "sum"\n', r"verifier.toml: kind"),
    "no kind": ([line(1)], "max_tokens = 3\n", "verifier.toml: .*kind"),
    "no TOML": ([line(1)], "kind", r"verifier.toml: "),
    "another kind's key": ([line(1)], SUMS + "max = 3\n", "max: nothing that kind = 'number' has"),
    "no tokens": ([line(1)], SUMS.replace("8", "0"), "max_tokens: must be"),
    "a metric that is none": ([line(1)], SUMS + 'metric = ""\n', "metric: a name is"),
    "negative": ([line(1)], SUMS + "tolerance = -1\n", "tolerance: "),
    "no bound": ([line(1)], 'kind = "words"\n', "say how many words"),
    "bounds crossed": ([line(1)], 'kind = "words"\nmin = 3\nmax = 2\n', "max: must not be below"),
    "no file": ([line(1)], FUNCTION, "verifier.py: No such file"),
    "no function": ([line(1)], FUNCTION + 'file = "other.py"\n', "no 'reward'"),
    "no Python": ([line(1)], FUNCTION + 'file = "broken.py"\n', "broken.py"),
    "a mark": ([line(1)], SUMS + 'mark = "a"\n', "mark: nothing that kind = 'number' has"),
    "no time": ([line(1)], FUNCTION + "timeout_s = 0.0\n", "timeout_s: must be"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    lines, verifier, said = WRONG[case]
    folder = write(tmp_path / "sums", [one for one in lines if isinstance(one, dict)], verifier)
    if any(isinstance(one, str) for one in lines):
        (folder / "tasks.jsonl").write_text("\n".join(lines))
    (folder / "other.py").write_text("def score(**more): ...\n")
    (folder / "broken.py").write_text("def reward(:\n")
    with pytest.raises(SettingsError, match=said):
        load(folder)


def test_folders_have_names_of_their_own(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "sums", [line(1)])
    with pytest.raises(SettingsError, match="two benchmarks are called 'sums'"):
        load_all([one, write(tmp_path / "b" / "sums", [line(1)])])
    with pytest.raises(SettingsError, match="the folder's name"):
        load(write(tmp_path / "Sums", [line(1)]))
    with pytest.raises(SettingsError, match=r"verifier.toml: No such file"):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", ["arithmetic", "format", "short"])
def test_the_examples_are_right_and_no_task_is_in_both_halves(name: str) -> None:
    one = load(ROOT / "examples/tasks" / name)
    assert len(one.split("train")) >= 24 and len(one.split("heldout")) >= 12
