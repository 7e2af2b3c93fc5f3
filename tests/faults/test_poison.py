"""Poison at the head of every partition of every topic, and 10,000 fuzzed values behind it."""

from __future__ import annotations

from collections.abc import Iterator
import json
import random
from typing import Any

import pytest

from tailrace import events, topics
from tailrace.topics import named
from tests.faults.machine import Machine
from tests.rewards.worker import PARTITIONS

pytestmark = pytest.mark.kafka
KINDS = (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK, topics.TICKS)
JSON = {"content-type": b"application/json"}
Poison = tuple[bytes | None, dict[str, bytes]]


def poison(machine: Machine, topic: topics.Topic) -> Iterator[Poison]:
    """What does not belong on a topic."""
    encode = machine.bench.wire.encode
    interaction = "default:p~0000000000000"
    samples: dict[str, events.Struct] = {
        "prompts": events.Prompt(
            interaction_id=interaction, session_id="acme:p", event_time_ms=1, tenant="acme"
        ),
        "outputs": events.Output(interaction_id=interaction, choice=-1, event_time_ms=1),
        "feedback": events.Feedback(
            feedback_id=f"{interaction}!f",
            interaction_id=interaction,
            event_time_ms=1,
            kind="number",
            number=float("nan"),
        ),
        "ticks": events.Tick(partition=77, event_time_ms=1, ends={}),
    }
    whole = encode(samples[topic.name])
    yield whole, {}
    yield whole[:-3], {}
    yield encode(samples["ticks" if topic.name != "ticks" else "prompts"]), {}
    yield None, {}
    yield b"", {}
    yield b"\xc3\x01" + b"\0" * 8 + b"body", {}
    yield b"\xff" * (topics.MAX_RECORD_BYTES - 1000), {}
    yield b"{", JSON
    yield b"[" * 100_000, JSON
    yield b'{"value": NaN}', JSON


def test_poison_at_every_head(machine: Machine) -> None:
    for topic in KINDS:
        for value, headers in poison(machine, topic):
            for partition in range(PARTITIONS):
                machine.bench.producer.append(
                    *(named(topic, machine.prefix), value),
                    key=b"default:p",
                    partition=partition,
                    headers=headers,
                )
        machine.bench.producer.flush()
    machine.start("a")
    machine.traffic.some(40)
    machine.end()
    assert machine.deaths == []


def fuzzed(machine: Machine, chance: random.Random, number: int) -> Iterator[tuple[str, Poison]]:
    """Random bytes, broken records, and documents of every type at every key."""
    encode = machine.bench.wire.encode
    subjects = [
        "default:s1",
        "acme:s1",
        "default:s1~0000000000000",
        "x" * 400,
        "",
        "a:b~c!d",
        "é:ü",
    ]
    values: list[Any] = [None, True, -1, 1e308, 10**400, "", "good", "\ud800", [], {}, [[]] * 9]
    keys = "feedback_id inference_id episode_id metric_name value kind tags replaces".split()
    keys += "preferred_over source grader user choice action".split()
    good = {"metric_name": "thumbs", "value": 1, "inference_id": subjects[2]}
    for at in range(number):
        how = at % 5
        if how == 0:
            yield "feedback", (chance.randbytes(chance.choice((0, 1, 9, 60, 3000))), {})
        elif how == 1:
            drawn = chance.sample(keys, chance.randint(1, 3))
            text = json.dumps(good | {key: chance.choice([*values, *subjects]) for key in drawn})
            yield "feedback", (text.encode("utf-8", "surrogatepass"), JSON)
        elif how == 2:
            yield "feedback", (chance.choice((b"[", b'{"a":', b"\xff\xfe")) * (at % 700), JSON)
        else:
            subject = chance.choice(subjects)
            record: events.Struct = events.Feedback(
                feedback_id=f"{subject}!{at}",
                interaction_id=chance.choice([subject, None]),
                session_id=chance.choice([subject, None]),
                event_time_ms=chance.choice((-(2**63), 0, 2**63 - 1)),
                choice=chance.choice((0, 0, -1, 2**40)),
                kind=chance.choice(("boolean", "number", "preference", "nonsense", None)),
                number=chance.choice((1.0, float("inf"), float("nan"), None)),
                action=chance.choice(("set", "set", "retract", "dance")),
                replaces=chance.choice((None, subject, f"{subject}!{at - 1}")),
                preferred_over=chance.choice((None, "1", subject)),
            )
            topic = "feedback"
            if how == 4:
                topic = chance.choice(("prompts", "outputs", "ticks"))
            broken = bytearray(encode(record))
            for _ in range(chance.choice((0, 0, 1, 3))):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            yield topic, (bytes(broken[: chance.choice((None, None, None, at % len(broken)))]), {})


def test_ten_thousand_fuzzed_values(machine: Machine) -> None:
    """As many receipts or dead letters as records, nothing unread, and the worker lives."""
    chance = random.Random(4)
    machine.start("a")
    for number, (topic, (value, headers)) in enumerate(fuzzed(machine, chance, 10_000)):
        machine.bench.producer.append(
            *(machine.prefix + topic, value),
            key=b"default:s1",
            partition=number % PARTITIONS,
            headers=headers,
        )
    machine.bench.producer.flush()
    machine.traffic.some(20)
    account = machine.end(120.0)
    assert account.feedback > 7000 and machine.deaths == []
