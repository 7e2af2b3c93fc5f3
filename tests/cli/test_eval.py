"""``tailrace eval``: of what is served, and of a version that is built from the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
from pathlib import Path
from typing import Any

import pytest

from tailrace import cli, topics
from tailrace.estimates import mean, wilson
from tailrace.log.memory import MemoryLog
from tailrace.tasks.figures import Scored, figures, in_words, interval
from tailrace.weights import folder
from tests import tinymodel
from tests.engine.models import MODEL
from tests.engine.real import Reference
from tests.gateway.conftest import Running, read
from tests.gateway.fakevllm import FakeVllm, Served
from tests.rollouts.scene import line, write

TOKENS = 6


def tasks_of(where: Path) -> Path:
    """Two held-out tasks, of three."""
    lines = [line(n, split="train" if n == 1 else "heldout") for n in range(3)]
    verifier = f'kind = "words"\nmin = 1\nmax_tokens = {TOKENS}\n'
    return write(where / "sums", lines, verifier)


def test_the_interval_is_wilsons_from_0_to_1_and_students_else() -> None:
    assert interval([]) is None and interval([7.0]) is None
    assert interval([1.0]) == wilson(1, 1)
    assert interval([0.5, 0.25, 1.0]) == wilson(1.75, 3)
    wide = mean([3.0, 5.0])
    assert interval([3.0, 5.0]) == (wide.low, wide.high)


def test_what_has_no_score_is_counted_and_said() -> None:
    items = [
        Scored(task="a", answer="4", score=1.0, versions=[3, 4]),
        Scored(task="b", answer="", reason="timeout", versions=[4]),
    ]
    found = figures("sums", "heldout", items)
    assert (found.tasks, found.scored, found.mean, found.versions) == (2, 1, 1.0, [3, 4])
    assert found.unscored == {"timeout": 1}
    lines = in_words(found)
    assert lines[0].startswith("sums (heldout), versions 3, 4: 1.000 [0.207, 1.000], 1 of 2")
    assert lines[1] == "  no score: 1 timeout"
    assert "version unknown: no score" in in_words(figures("x", "train", []))[0]


@pytest.fixture
def served(tmp_path: Path, tiny_model: Path) -> Iterator[tuple[Running, FakeVllm]]:
    """A gateway and what it asks."""
    from services.gateway.settings import Settings

    log = MemoryLog()
    log.create(topics.TOPICS, session_partitions=1)
    vllm = FakeVllm()
    engine = Served(vllm.app)
    settings = Settings(
        state_dir=tmp_path, model_dir=tiny_model, engine_url=engine.url, learn_default=True
    )
    running = Running(settings, log)
    yield running, vllm
    running.stop()
    engine.stop()


def test_the_gateway_is_asked_greedily_and_told_not_to_learn(
    served: tuple[Running, FakeVllm], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, vllm = served
    code = cli.main(["eval", str(tasks_of(tmp_path)), "--url", f"{gateway.url}/v1", "--json"])
    assert code == 0
    (found,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert (found["tasks"], found["scored"], found["mean"]) == (2, 2, 1.0)
    assert found["versions"] == [7]
    assert {item["task"] for item in found["items"]} == {"t0", "t2"}
    assert {item["answer"] for item in found["items"]} == {"The river runs"}
    for asked in vllm.asked:
        assert asked["sampling_params"]["temperature"] == 0.0
        assert asked["sampling_params"]["max_tokens"] == TOKENS
    gateway.on_kafka()
    prompts = gateway.records(topics.PROMPTS, 2)
    assert {(p.learn, p.task) for p in prompts} == {(False, "sums")}
    assert {o.untrainable for o in read(gateway.log, topics.OUTPUTS)} <= {"temperature"}


def test_a_gateway_that_fails_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", str(tasks_of(tmp_path)), "--url", "http://127.0.0.1:9"]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_a_version_is_built_from_the_log_and_answers_here(
    published: list[Any], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tasks_of(tmp_path)
    assert cli.main(["eval", str(where), "--version", "1", "--model", MODEL, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert found["versions"] == [1] and found["scored"] == 2
    # What transformers says of the same weights, one prompt at a time and token by token.
    exported = tmp_path / "v1"
    assert cli.main(["models", "export", "1", str(exported), "--model", MODEL]) == 0
    reference, words = Reference(exported), tinymodel.tokenizer()
    tensors = dict(folder.read(exported))
    for item in found["items"]:
        asked = line(int(item["task"][1:]))["messages"]
        prompt = words.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        tokens, _ = reference.greedy(tensors, prompt, TOKENS)
        end = words.eos_token_id
        tokens = tokens[: tokens.index(end)] if end in tokens else tokens
        assert item["answer"] == words.decode(tokens, skip_special_tokens=True)


WRONG: dict[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "no such version": (lambda f: [str(f), "--version", "9"], 1, "no version 9"),
    "no such folder": (lambda f: [str(f / "x")], 2, "verifier.toml"),
    "version and url": (
        lambda f: [str(f), "--version", "1", "--url", "http://127.0.0.1:9"],
        2,
        "--version",
    ),
    "nobody at once": (lambda f: [str(f), "--at-once", "0"], 2, "--at-once"),
    "no gateway": (lambda f: [str(f)], 1, "no gateway"),
    "twice": (lambda f: [str(f), str(f)], 2, "two benchmarks"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_measured_is_said(
    published: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, code, text = WRONG[case]
    assert cli.main(["eval", *arguments(tasks_of(tmp_path)), "--model", MODEL]) == code
    said = capsys.readouterr()
    assert text in said.err and not said.out


def test_a_half_that_is_empty_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = write(tmp_path / "sums", [line(1)])
    assert cli.main(["eval", str(where), "--url", "http://127.0.0.1:9"]) == 2
    assert "no task is heldout" in capsys.readouterr().err
