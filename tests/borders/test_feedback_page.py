"""docs/feedback.md and the README's block for producers: what they show is taken as shown."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from services.graders import spec as graders
from services.rewards import spec as rewards
from services.rewards import terms
from tailrace import events, feedback_json, topics
from tailrace.log.memory import MemoryLog
from tailrace.reading import read
from tests.borders.test_imports import ROOT

PAGE = (ROOT / "docs" / "feedback.md").read_text()
REWARDS, GRADERS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_reward_spec_is_one():
    found = rewards.parse(REWARDS)
    assert found.metrics.keys() == {"thumbs", "stars", "solved", "better"}
    assert found.longest_wait_ms == 600_000


@pytest.mark.parametrize(
    "kind",
    [rewards.Spec, terms.Metric, terms.Implicit, terms.Verifier, graders.Function, graders.Judge],
)
def test_every_key_of_a_spec_has_a_row(kind):
    firsts = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| ")]
    rows = {name for first in firsts for name in re.findall(r"`(\w+)`", first)}
    families = {"metrics", "implicit", "verifiers"}
    assert {field.name for field in msgspec.structs.fields(kind)} <= rows | families


def test_the_graders_spec_is_one(tmp_path):
    file = tmp_path / "graders.toml"
    file.write_text(GRADERS)
    (tmp_path / "polite.py").write_text("def reward(completions, **columns): return [0.0]\n")
    found = graders.load(file, {})
    assert set(found.functions) | set(found.judges) == {"polite", "helpful"}


def test_the_bodies_are_feedback():
    bodies = re.findall(r"'(\{.*?\})'", PAGE)
    assert len(bodies) == 2
    for body in bodies:
        given = {"feedback_id": "made-by-the-gateway"} | json.loads(body)
        record = feedback_json.from_document(given, now_ms=1)
        assert (record.boolean, record.tenant) == (True, "default")


def test_every_kind_has_a_row():
    rows = re.findall(r"^\| (\w+) \|", PAGE.partition("## Ways")[0], re.MULTILINE)
    assert rows[1:] == list(feedback_json.KINDS)


def test_the_readmes_producer_produces(monkeypatch):
    log = MemoryLog()
    log.create([topics.FEEDBACK, topics.SCHEMAS])
    monkeypatch.setattr("tailrace.log.kafka.KafkaLog", lambda kafka: log)
    text = (ROOT / "README.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Producer(" in b)
    exec(compile(block, "README.md", "exec"), {})
    found = [event for _, event in read("feedback", log=log)]
    assert all(isinstance(event, events.Feedback) for event in found)
    kinds = [(event.kind, event.action) for event in found if isinstance(event, events.Feedback)]
    assert kinds == [
        ("boolean", "set"),
        ("number", "set"),
        ("demonstration", "set"),
        ("preference", "set"),
        (None, "retract"),
    ]
