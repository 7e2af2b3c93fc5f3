"""The trace of a rollout begins with its request to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace import events, ids, topics
from tailrace.log.memory import MemoryLog
from tailrace.stream import read_all
from tests.gateway.fakevllm import wait_until
from tests.rollouts.fakeengine import FakeEngine
from tests.rollouts.scene import line, write
from tests.rollouts.stage import WIRE, Stage
from tests.traces.receiver import Received, Receiver, context_of, receiving

RECORDS = {
    topics.PROMPTS: events.Prompt,
    topics.OUTPUTS: events.Output,
    topics.FEEDBACK: events.Feedback,
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def stage_of(tmp_path: Path, url: str, **given: object) -> Stage:
    return Stage(tmp_path, MemoryLog(), url, [write(tmp_path / "sums", [line(3)])], **given)


def by_id(spans: list[Received]) -> dict[str, Received]:
    return {s.attributes["gen_ai.response.id"]: s for s in spans if not s.failed}


def test_every_record_of_a_sample_has_the_span_of_its_request(
    tmp_path: Path, url: str, engine: FakeEngine, receiver: Receiver
) -> None:
    stage = stage_of(tmp_path, url, otlp_endpoint=receiver.url)
    with stage.running():
        wait_until(lambda: len(stage.records(topics.FEEDBACK)) >= 4, "two groups")
    assert not stage.errors
    spans = by_id(receiver.spans(4))
    for topic, kind in RECORDS.items():
        for record in read_all(stage.log, topic.name):
            name = WIRE.decode(kind, record.value).interaction_id
            assert context_of(record.headers["traceparent"].decode()) == spans[name].context
    assert len({span.trace for span in spans.values()}) == len(spans)
    assert {span.context for span in spans.values()} <= {context_of(t) for t in engine.traceparents}
    output = stage.records(topics.OUTPUTS)[0]
    span = spans[output.interaction_id]
    assert (span.service, span.name, span.parent) == ("tailrace-rollouts", "chat m", "")
    assert span.client and span.links == []
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.response.id": output.interaction_id,
        "gen_ai.conversation.id": ids.session_of(output.interaction_id),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ["stop"],
        "tailrace.weight_versions": [7],
        "tailrace.outcome": "done",
    }


def test_a_request_that_failed_says_why_and_the_next_has_another_span(
    tmp_path: Path, url: str, engine: FakeEngine, receiver: Receiver
) -> None:
    engine.statuses = [500]
    stage = stage_of(tmp_path, url, otlp_endpoint=receiver.url)
    with stage.running():
        wait_until(lambda: stage.groups(), "a group")
    spans = receiver.spans(3)
    [failed] = [span for span in spans if span.attributes.get("error.type") == "engine_error"]
    again = by_id(spans)[failed.attributes["gen_ai.response.id"]]
    assert failed.failed and failed.trace != again.trace


def test_without_an_endpoint_neither_engine_nor_records_hear_of_a_trace(
    tmp_path: Path, url: str, engine: FakeEngine
) -> None:
    stage = stage_of(tmp_path, url)
    with stage.running():
        wait_until(lambda: stage.records(topics.FEEDBACK), "a group")
    assert set(engine.traceparents) == {None}
    records = [record for topic in RECORDS for record in read_all(stage.log, topic.name)]
    assert not any("traceparent" in record.headers for record in records)
