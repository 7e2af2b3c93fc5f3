"""A request's span: a child of the client's, the parent of the engine's, in every record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace import topics
from tailrace.stream import read_all
from tests.gateway.conftest import MODEL
from tests.traces.receiver import TRACE, Receiver, context_of, receiving

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "a secret"}]}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_request_s_span_goes_on_to_the_engine_and_the_records(start, vllm, log, receiver):
    gateway = start(otlp_endpoint=receiver.url)
    headers = {"traceparent": TRACE}
    answer = gateway.http.post("/v1/chat/completions", json=ASKED, headers=headers)
    gateway.on_kafka()
    [output] = gateway.records(topics.OUTPUTS, 1)
    gateway.stop()
    [span] = receiver.spans(1)
    assert (span.service, span.name) == ("tailrace-gateway", f"chat {MODEL}")
    assert f"{span.trace}-{span.parent}" == context_of(TRACE) and not span.failed
    assert [context_of(given) for given in vllm.traceparents] == [span.context]
    for topic in (topics.PROMPTS, topics.OUTPUTS):
        [record] = read_all(log, topic.name)
        assert context_of(record.headers["traceparent"].decode()) == span.context
    usage = answer.json()["usage"]
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.id": output.interaction_id,
        "gen_ai.conversation.id": answer.headers["x-tailrace-session"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.response.finish_reasons": ["stop"],
        "tailrace.outcome": "done",
        "tailrace.weight_versions": [7],
    }


def test_a_stream_and_an_answer_that_failed_end_their_spans_too(start, vllm, receiver):
    gateway = start(otlp_endpoint=receiver.url)
    with gateway.http.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as got:
        assert got.read()
    vllm.refuse = [(400, "no")]
    text = {"model": MODEL, "prompt": "a secret"}
    assert gateway.http.post("/v1/completions", json=text).status_code == 400
    gateway.stop()
    done, refused = receiver.spans(2)
    assert done.attributes["tailrace.outcome"] == "done" and not done.failed
    assert refused.name == f"text_completion {MODEL}" and refused.failed
    assert refused.attributes["error.type"] == "engine_refused"
    assert done.parent == refused.parent == "" and done.trace != refused.trace


def test_without_an_endpoint_the_engine_hears_of_no_trace(gateway, vllm):
    gateway.http.post("/v1/chat/completions", json=ASKED, headers={"traceparent": TRACE})
    assert vllm.traceparents == [None]
