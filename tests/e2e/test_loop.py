"""The loop, closed, on real parts: Kafka, Redis, Faust, vLLM, torch and SmolLM2.

One system is started by the local runner. Answers are asked for, judged by users and by a grader,
and trained on; the weights that come of it arrive over Kafka, and the same question gets another
answer. Then all is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import subprocess
import sys
import threading
import time
from typing import Any, TypeVar

import openai
import pytest

from services.local.runner import Runner
from services.local.settings import Settings
import tailrace
from tailrace import audit, ids, topics, versions
from tailrace.client import Client
from tailrace.events import Command, Receipt, Trajectory
from tailrace.log.kafka import KafkaLog
from tailrace.settings import Common
from tailrace.stream import Writer
from tailrace.wire import Wire

pytestmark = pytest.mark.e2e

T = TypeVar("T")
MODEL = "smollm2-135m-instruct"
PROBE = [{"role": "user", "content": "Why is the sky blue?"}]
SPEC = """
wait_s = 2
late = "correct"
orphan_s = 60
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
PATIENCE_S = 600.0
"""No promise: a processor that has no bfloat16 of its own takes over a minute for a step."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("loop")
    spec = folder / "reward.toml"
    spec.write_text(SPEC)
    graders, brief = folder / "graders.toml", folder / "brief.py"
    brief.write_text(BRIEF)
    graders.write_text(GRADERS.format(file=brief))
    services = ("engine", "gateway", "rewards", "graders", "drift", "trainer", "releases")
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


def _teach(ai: openai.OpenAI, client: Client, turn: int) -> str:
    """An answer, and a thumb about it: its feedback id."""
    answer = ai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"Say something about the number {turn}."}],
        max_tokens=16,
        temperature=1.0,
    )
    return client.feedback(answer.id, turn % 2 == 0, metric="thumbs")


def _settled(kafka: KafkaLog) -> audit.Report | None:
    """The account, when nothing is in flight. A drain takes what there is when it comes, and the
    last answers are still being joined: so it is asked for until the account is settled."""
    producer = kafka.producer()
    order = Command(model=MODEL, command="drain", event_time_ms=time.time_ns() // 10**6)
    Writer(producer, Wire()).write(topics.CONTROL, order).result(30)
    producer.close()
    report = audit.read(kafka, Wire(), model=MODEL).report()
    flying = report.feedback.in_flight + report.trajectories.in_flight
    return None if flying else report


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

    def another() -> Any:
        said.append(_teach(ai, client, len(said)))
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

    # Drained, everything that went in has come out.
    kafka = KafkaLog(system.addresses.kafka)
    report = _until("a settled account", lambda: _settled(kafka))
    assert report.ok, audit.in_words(report)
    assert report.trajectories.outcomes["trained"] >= 4  # the fewest that make a step here

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
    kafka.close()


def test_one_command_steps_back_while_users_are_served(
    system: Runner, ai: openai.OpenAI, client: Client
) -> None:
    assert system.addresses is not None
    kafka = KafkaLog(system.addresses.kafka)
    common = Common(model=MODEL)
    turn = 0

    def taught(newest: int) -> versions.Models | None:
        nonlocal turn
        turn += 1
        _teach(ai, client, turn)
        found = versions.gather(kafka, common)
        deltas = [v for v in found.versions if v.kind == "delta"]
        there = len(deltas) >= 3 and deltas[-1].engines and deltas[-1].version >= newest
        return found if there else None

    found = _until("some versions", lambda: taught(4))
    back = [v.version for v in found.versions if v.kind == "delta"][-3]
    head = found.versions[-1].version
    assert back < head

    # Streams run through it, and none of them fails.
    answers: list[list[int]] = []
    failed: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer = ai.chat.completions.create(
                    model=MODEL, messages=PROBE, max_tokens=32, temperature=1.0
                )
                answers.append(answer.model_extra["tailrace"]["weight_versions"])
            except Exception as error:  # any is a failure
                failed.append(error)

    users = [threading.Thread(target=ask) for _ in range(4)]
    for user in users:
        user.start()
    command = [sys.executable, "-m", "tailrace.cli", "models", "rollback", "--to", str(back)]
    command += ["--state-dir", str(system.state_dir), "--json"]
    began_s = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    wall_s = time.monotonic() - began_s
    done.set()
    for user in users:
        user.join()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout)
    print(f"rollback: {said['seconds']} s, command {wall_s:.1f} s, {len(answers)} answers")
    print(ran.stderr)
    assert said["seconds"] < 30 and not failed and answers
    now = ai.chat.completions.create(model=MODEL, messages=PROBE, max_tokens=8, temperature=0)
    withdrawn = range(back + 1, head + 1)
    assert not set(now.model_extra["tailrace"]["weight_versions"]) & set(withdrawn)

    # Training goes on from there, under new numbers, and every history adds up.
    found = _until("a version of the new branch", lambda: taught(head + 1))
    assert {v.version for v in found.versions if v.withdrawn} >= set(withdrawn)
    assert found.served is not None and found.served > head
    report = _until("a settled account", lambda: _settled(kafka))
    assert report.ok, audit.in_words(report)
    receipts = [e for _, e in tailrace.read("receipts", log=kafka)]
    skipped = [r for r in receipts if isinstance(r, Receipt) and r.reason == "rolled_back"]
    assert skipped
    kafka.close()
