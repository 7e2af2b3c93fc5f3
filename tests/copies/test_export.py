"""Data sets in folders: what is in them, what is left out, in columns that trainers know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tailrace import topics
from tailrace.export.choice import Choice
from tailrace.export.command import exported
from tailrace.export.pairs import Pairs, Texts
from tailrace.export.source import Source
from tailrace.settings import Common
from tests.copies.answers import NOW_MS, Answers
from tests.copies.conftest import Command

MESSAGE = "list<element: struct<role: string, content: string>>"


def rows(folder: Path) -> list[dict[str, Any]]:
    found = []
    for file in sorted((folder / "data").iterdir()):
        if file.suffix == ".jsonl":
            found += [json.loads(line) for line in file.read_text().splitlines()]
        else:
            found += pq.read_table(file).to_pylist(maps_as_pydicts="strict")
    return found


def export(
    answers: Answers, folder: Path, form: str, choice: Choice | None = None, **more: Any
) -> Any:
    source = Source.of(answers.log, Common(), None, None)
    return exported(source, choice or Choice(), folder, form, **more)


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_everything_of_a_trajectory_is_there(tmp_path: Path, form: str) -> None:
    answers = Answers()
    one = answers.add(feedback_ids=["a", "b"], user="ann", edit="Lyon.")
    silent = answers.add(reward=None, components=[], content=None)
    found = export(answers, tmp_path / "set", form)
    assert (found["read"], found["rows"], found["left_out"]) == (2, 2, {})
    first, second = sorted(rows(tmp_path / "set"), key=lambda row: row["reward"] is None)
    assert first["trajectory_id"] == one.trajectory_id
    assert (first["token_ids"], first["logprobs"]) == ([4, 5], [-0.5, -1.0])
    assert (first["versions"], first["tags"]) == ([3], {"place": "shop"})
    assert first["components"] == [{"name": "thumbs", "value": 1.0, "weight": 1.0, "reason": None}]
    assert (first["feedback_ids"], first["user"]) == (["a", "b"], "ann")
    assert json.loads(first["message"])["content"] == "Paris." and first["demonstration"] == "Lyon."
    assert second["trajectory_id"] == silent.trajectory_id
    assert (second["reward"], second["token_ids"], second["messages"]) == (None, None, None)
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"path: data/*.{form}" in card and "2 rows" in card


@pytest.mark.parametrize("form", ["parquet", "jsonl", "sft", "kto"])
@pytest.mark.parametrize("shard_rows", [2, 50])
def test_of_an_answer_its_newest_revision_alone(tmp_path: Path, form: str, shard_rows: int) -> None:
    answers = Answers()
    first = answers.add(reward=-1.0)
    other = answers.add()
    second = answers.revise(first, reward=0.5)
    answers.writer.write(topics.TRAJECTORIES, other)
    third = answers.revise(second, reward=1.0)
    worse = answers.add()
    answers.revise(worse, reward=-1.0)
    found = export(answers, tmp_path / "set", form, Choice(min_reward=0), shard_rows=shard_rows)
    names = {row["trajectory_id"] for row in rows(tmp_path / "set")}
    assert names == {third.trajectory_id, other.trajectory_id}
    assert (found["read"], found["rows"]) == (7, 2)
    assert found["left_out"] == {"repeated": 1, "reward": 2, "superseded": 2}


def test_what_was_asked_for_is_what_there_is(tmp_path: Path, command: Command) -> None:
    answers = Answers()
    answers.add(answers.turn("acme"), reward=0.9)
    answers.add(reward=0.1)
    answers.add(learn=False, content=None)
    answers.add(learn=None, content=None)
    answers.add(weight_versions=[], reward=0.8)
    since = answers.now_ms + 500
    late = answers.add(reward=0.7)
    words = {
        (): (4, {"no_consent": 2}),
        ("--without-consent",): (6, {}),
        ("--tenant", "acme"): (1, {"no_consent": 2, "tenant": 3}),
        ("--min-reward", "0.5"): (3, {"no_consent": 2, "reward": 1}),
        ("--max-reward", "0.5"): (1, {"no_consent": 2, "reward": 3}),
        ("--versions", "3"): (3, {"no_consent": 2, "version": 1}),
        ("--versions", "4.."): (0, {"no_consent": 2, "version": 4}),
        ("--since", since): (1, {}),
        ("--until", since): (3, {"no_consent": 2}),
    }
    for number, (given, expected) in enumerate(words.items()):
        to = tmp_path / str(number)
        found = command(answers.log, "export", "--to", to, *given, "--json")
        assert (found["rows"], found["left_out"]) == expected, given
        assert found["read"] == sum(found["left_out"].values()) + found["rows"]
    assert [row["trajectory_id"] for row in rows(tmp_path / "7")] == [late.trajectory_id]
    assert rows(tmp_path / "6") == []
    code, words_ = command(answers.log, "export", "--to", tmp_path / "0")
    assert code == 1 and "is there already, and not an empty folder" in words_
    code, words_ = command(answers.log, "export", "--to", tmp_path / "x", "--versions", "new")
    assert code == 1 and "'new' is neither a version" in words_
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(len(words))]


def test_sft_has_what_a_person_wrote_else_the_answer(tmp_path: Path) -> None:
    answers = Answers()
    answers.add(edit="It is Paris.")
    answers.add(messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
    answers.add(untrainable="too_long")
    answers.add(untrainable="too_long", edit="Shorter.")
    answers.add(error="engine")
    answers.add(messages="Once upon")
    answers.add(message={"content": None, "tool_calls": [{"id": "1"}]})
    answers.add(messages=[{"role": "user", "content": [{"type": "image_url"}]}])
    answers.add(content=None)
    found = export(answers, tmp_path / "set", "sft")
    made = rows(tmp_path / "set")
    assert sorted(row["completion"][0]["content"] for row in made) == [
        *("It is Paris.", "Paris.", "Shorter."),
    ]
    assert said("Hi", "user") in [row["prompt"] for row in made]
    assert found["left_out"] == {
        **{"error": 1, "no_content": 1, "not_text": 1, "plain_prompt": 1, "tools": 1},
        "untrainable": 1,
    }
    schema = pq.read_schema(tmp_path / "set" / "data" / "train-00-00000.parquet")
    assert [str(schema.field(n).type) for n in ("prompt", "completion")] == [MESSAGE, MESSAGE]


def test_kto_has_a_label(tmp_path: Path) -> None:
    answers = Answers()
    for reward in (1.0, 0.4, -1.0, None):
        answers.add(reward=reward)
    found = export(answers, tmp_path / "set", "kto", good_above=0.5)
    labels = sorted(row["label"] for row in rows(tmp_path / "set"))
    assert labels == [False, False, True] and found["left_out"] == {"no_reward": 1}


@pytest.mark.parametrize("form", ["dpo", "reward"])
def test_pairs_come_of_preferences_edits_and_groups(tmp_path: Path, form: str) -> None:
    answers = Answers()
    edited = answers.add(edit="It is Paris.", text="Lyon.")
    two = answers.turn()
    won = answers.add(two, text="Good.", choice=0, preferred_over=[f"{two}/1"], reward=None)
    lost = answers.add(two, text="Bad.", choice=1, reward=None)
    group = [answers.add(text=f"{n}.", group_id="g", reward=n / 4) for n in range(4)]
    answers.add(group_id="alone", reward=1.0)
    same = [answers.add(group_id="same", reward=0.5) for _ in range(2)]
    other = answers.turn()
    answers.add(answers.turn(), asked="Else?", preferred_over=[f"{other}/0"])
    answers.add(other)
    found = export(answers, tmp_path / "set", form)
    made = {row["by"]: row for row in rows(tmp_path / "set")}
    assert made["demonstration"]["chosen"] == said("It is Paris.")
    assert made["demonstration"]["rejected"] == said("Lyon.")
    assert made["demonstration"]["rejected_id"] == edited.trajectory_id
    by_preference = made["preference"]
    assert (by_preference["chosen"], by_preference["rejected"]) == (said("Good."), said("Bad."))
    assert by_preference["chosen_id"] == won.trajectory_id
    assert by_preference["rejected_id"] == lost.trajectory_id
    best = made["reward"]
    assert (best["chosen"], best["rejected"]) == (said("3."), said("0."))
    assert (best["chosen_id"], best["reward_difference"]) == (group[3].trajectory_id, 0.75)
    assert best["prompt"] == said("What is the capital of France?", "user")
    assert found["rows"] == 3 and found["left_out"] == {"other_prompt": 1} and len(same) == 2
    less = export(answers, tmp_path / "less", form, margin=0.8)
    assert less["rows"] == 2


def test_an_older_revision_that_comes_again_replaces_nothing(tmp_path: Path) -> None:
    answers = Answers()
    two = answers.turn()
    first = answers.add(two, text="Old.", choice=0, reward=0.0)
    newer = answers.revise(first, text="New.", reward=1.0)
    answers.add(two, text="Other.", choice=1, reward=0.5)
    refused = answers.add(two, text="Was good.", choice=2, reward=2.0)
    answers.revise(refused, learn=False)
    for again, reward in ((first, 0.0), (refused, 2.0)):
        answers.add(two, text="Again.", choice=again.choice, reward=reward)
    export(answers, tmp_path / "set", "dpo")
    (row,) = rows(tmp_path / "set")
    assert (row["chosen_id"], row["chosen"]) == (newer.trajectory_id, said("New."))
    assert row["rejected"] == said("Other.")


@pytest.mark.parametrize("shard_rows", [1, 2, 9])
def test_pairs_are_written_as_they_are_made(tmp_path: Path, shard_rows: int) -> None:
    answers = Answers()
    for number in range(4):
        answers.add(edit=f"{number}!", text=f"{number}.")
    found = export(answers, tmp_path / "set", "dpo", shard_rows=shard_rows)
    assert found["rows"] == len(rows(tmp_path / "set")) == 4
    files = sorted((tmp_path / "set" / "data").iterdir())
    assert len(files) == -(-4 // shard_rows)
    empty = export(Answers(), tmp_path / "empty", "dpo", shard_rows=shard_rows)
    assert empty["rows"] == 0 and len(list((tmp_path / "empty" / "data").iterdir())) == 1


def test_of_what_is_in_a_pair_its_texts_alone_are_kept() -> None:
    answers = Answers()
    pairs = Pairs(Choice(), 0.0)
    pairs.see(one := answers.add(edit="Lyon."))
    texts = Texts(pairs)
    texts.take(one)
    (kept,) = texts._found.values()
    assert kept.content is not None and kept.content.messages is not None
    assert not kept.content.token_ids and not kept.content.logprobs and not kept.weight_versions
    assert [row["chosen"] for row in texts.rows()] == [said("Lyon.")]


def test_bounds_of_rewards_are_those_of_the_chosen_answer(tmp_path: Path) -> None:
    answers = Answers()
    answers.add(edit="It is Paris.", reward=-1.0)
    for group, best in (("low", 0.4), ("high", 0.9)):
        for number, reward in enumerate((best, -0.5)):
            answers.add(text=f"{number}.", group_id=group, reward=reward)
    export(answers, tmp_path / "set", "dpo", Choice(min_reward=0.5))
    assert {row["by"]: row["reward_difference"] for row in rows(tmp_path / "set")} == {
        "demonstration": None,
        "reward": pytest.approx(1.4),
    }


def test_groups_of_one_name_meet_in_their_session_alone(tmp_path: Path) -> None:
    answers = Answers()
    rewards = iter((0.9, 0.7, 0.3, 0.1))
    for turn in (answers.turn("acme"), answers.turn(), answers.turn(session="other")):
        answers.add(turn, text=f"{turn}.", group_id="g", reward=next(rewards))
    assert export(answers, tmp_path / "none", "dpo")["rows"] == 0
    answers.add(text="Worse.", group_id="g", reward=next(rewards))
    export(answers, tmp_path / "set", "dpo")
    (row,) = rows(tmp_path / "set")
    assert row["reward_difference"] == pytest.approx(0.6)


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    answers = Answers()
    answers.add()

    def broken(left_out: object) -> Any:
        yield from Source.of(answers.log, Common(), None, None)(left_out)  # type: ignore[arg-type]
        raise OSError("no space")

    broken.prefix = ""  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="no space"):
        exported(broken, Choice(), tmp_path / "set", "parquet", shard_rows=1)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_trajectory_are_counted(tmp_path: Path) -> None:
    answers = Answers()
    answers.add()
    answers.writer.producer.append("trajectories", b"nonsense", partition=0)
    found = export(answers, tmp_path / "set", "jsonl")
    assert (found["read"], found["rows"], found["left_out"]) == (2, 1, {"unreadable": 1})
    assert NOW_MS < answers.now_ms
