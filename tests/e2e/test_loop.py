"""The loop, closed, on real parts: Kafka, Redis, Faust, vLLM, torch and SmolLM2.

One system is started by the local runner. Answers are asked for, judged by users and by a grader,
and trained on; the weights that come of it arrive over Kafka, and the same question gets another
answer. Then all is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import time
from typing import Any, TypeVar

import openai
import pytest

from services.local.runner import Runner
from services.local.settings import Settings
import tailrace
from tailrace import audit, ids, topics
from tailrace.client import Client
from tailrace.events import Command, Trajectory
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer
from tailrace.wire import Wire

pytestmark = pytest.mark.e2e

T = TypeVar("T")
MODEL = "smollm2-135m-instruct"
PROBE = [{"role": "user", "content": "Why is the sky blue?"}]
SPEC = """
wait_s = 2
late = "correct"
orphan_s = 5
clip = [-1.0, 1.0]
[metrics.thumbs]
true = 1.0
false = -1.0
[metrics.brief]
weight = 0.1
"""
GRADERS = """
[functions.brief]
file = "{file}"
function = "reward"
metric = "brief"
"""
BRIEF = """
def reward(completions, **columns):
    return [1 / (1 + len(said[0]["content"])) for said in completions]
"""
PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("loop")
    spec = folder / "reward.toml"
    spec.write_text(SPEC)
    graders, brief = folder / "graders.toml", folder / "brief.py"
    brief.write_text(BRIEF)
    graders.write_text(GRADERS.format(file=brief))
    services = ("engine", "gateway", "rewards", "graders", "drift", "trainer")
    runner = Runner(
        Settings(state_dir=folder / "state", services=services),
        on_event=print,
        user={
            "rewards": {"spec": str(spec)},
            "graders": {"spec": str(graders)},
            # A rate that no one would train with: one step has to be seen in a greedy answer.
            "trainer": {"lr": 3e-4, "batch_answers": 8, "min_answers": 4, "batch_wait_s": 2.0},
        },
    )
    runner.start()
    yield runner
    runner.stop()


def _until(what: str, ask: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
    """What ``ask`` answers as soon as it is not None."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = ask()
        if found is not None:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come to pass within {patience_s} s")


@pytest.fixture
def ai(system: Runner) -> Iterator[openai.OpenAI]:
    """The official client, as it comes."""
    assert system.addresses is not None
    base_url = f"{system.addresses.gateway}/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def client(system: Runner) -> Iterator[Client]:
    assert system.addresses is not None
    with Client(system.addresses.gateway) as client:
        yield client


def test_an_answer_becomes_a_better_answer_and_all_is_accounted_for(
    system: Runner, ai: openai.OpenAI, client: Client
) -> None:
    assert system.addresses is not None
    # The unchanged OpenAI client is served by version 0, plain and streamed alike.
    assert MODEL in [model.id for model in ai.models.list()]
    before = ai.chat.completions.create(model=MODEL, messages=PROBE, max_tokens=24, temperature=0)
    streamed = ai.chat.completions.create(
        model=MODEL, messages=PROBE, max_tokens=24, temperature=0, stream=True
    )
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert text == before.choices[0].message.content

    # Users are asked what they think until the same question gets another answer.
    said: list[str] = []

    def teach() -> None:
        turn = len(said)
        answer = ai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Say something about the number {turn}."}],
            max_tokens=16,
            temperature=1.0,
        )
        said.append(client.feedback(answer.id, turn % 2 == 0, metric="thumbs"))

    def another() -> Any:
        teach()
        after = ai.chat.completions.create(
            model=MODEL, messages=PROBE, max_tokens=24, temperature=0
        )
        return after if after.choices[0].message.content != text else None

    after = _until("another answer", another)
    versions = after.model_extra["tailrace"]["weight_versions"]
    assert max(versions) >= 1, "the new answer came from the old weights alone"

    # What became of the first thumb: trained, and served since.
    def served() -> dict[str, Any] | None:
        found = client.fate(said[0])
        return found if found.get("serving_since") else None

    assert _until("the first thumb's fate", served)["outcome"] == "joined"

    # Drained, everything that went in has come out. A drain takes what there is when it comes, and
    # the last answers are still being joined: so it is asked for until the account is settled.
    kafka = KafkaLog(system.addresses.kafka)

    def drain() -> None:
        producer = kafka.producer()
        order = Command(model=MODEL, command="drain", event_time_ms=time.time_ns() // 10**6)
        Writer(producer, Wire()).write(topics.CONTROL, order).result(30)
        producer.close()

    def settled() -> audit.Report | None:
        drain()
        report = audit.read(kafka, Wire(), model=MODEL).report()
        flying = report.feedback.in_flight + report.trajectories.in_flight
        return None if flying else report

    report = _until("a settled account", settled)
    assert report.ok, audit.in_words(report)
    assert report.trajectories.outcomes["trained"] >= 8

    # Each answer that a user judged was judged by the grader too, and both made its reward.
    newest: dict[str, Trajectory] = {}
    for _, one in tailrace.read("trajectories", log=kafka):
        assert isinstance(one, Trajectory)
        newest[one.interaction_id] = one
    for feedback_id in said:
        one = newest[ids.subject_of(feedback_id)]
        terms = {term.name: term.value for term in one.components}
        assert terms["thumbs"] in (1.0, -1.0)
        assert terms["brief"] is not None and 0 < terms["brief"] <= 1, terms
    graded = sum(one.source == "grader" for _, one in tailrace.read("feedback", log=kafka))
    assert graded >= len(said)
    assert sum(report.feedback.outcomes.values()) == len(said) + graded
