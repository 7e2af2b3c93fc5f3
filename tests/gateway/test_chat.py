"""Chat through the official client: what the client sees and what is recorded."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from tailrace import ids, packing, topics
from tailrace.events import VersionSpan
from tests.gateway.fakevllm import wait_until

SPANNING = [
    {"version": "7", "start": 0, "end": 1},
    {"version": "8", "start": 1, "end": 4},
]


def test_a_plain_answer(gateway, vllm):
    raw = gateway.openai.chat.completions.with_raw_response.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": "Hi"}],
        extra_headers={"x-tailrace-session": "chat-1", "x-tailrace-user": "u1"},
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "The river runs"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 4
    assert answer.usage.prompt_tokens == len(vllm.asked[0]["token_ids"])
    assert raw.headers["x-tailrace-interaction-id"] == answer.id
    assert raw.headers["x-tailrace-weight-versions"] == "7"
    assert ids.session_of(answer.id) == "default:chat-1"
    (prompt,) = gateway.records(topics.PROMPTS, 1)
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert prompt.interaction_id == output.interaction_id == answer.id
    assert (prompt.session_id, prompt.user, prompt.learn) == ("default:chat-1", "u1", True)
    assert prompt.sampling == {"n": "1"}
    assert prompt.logprobs_mode == "processed_logprobs"
    assert packing.unpack_ids(prompt.content.prompt_token_ids) == vllm.asked[0]["token_ids"]
    assert json.loads(prompt.content.messages) == [{"role": "user", "content": "Hi"}]
    assert packing.unpack_ids(output.content.token_ids) == [11, 12, 13, 2]
    assert packing.unpack_logprobs(output.content.logprobs) == [-0.5, -1.25, -0.125, -0.0625]
    assert json.loads(output.content.message)["content"] == "The river runs"
    assert output.weight_versions == [VersionSpan(version=7, start=0, end=4)]
    assert (output.untrainable, output.error, output.finish_reason) == (None, None, "stop")
    assert output.ttft_ms is None and output.total_ms >= 0


def test_a_streamed_answer_is_recorded_alike(gateway, vllm):
    vllm.spans = SPANNING
    chunks = list(
        gateway.chat(stream=True, stream_options={"include_usage": True}, temperature=0.7)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "The river runs"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 4
    last = chunks[-2]
    assert last.choices[0].finish_reason == "stop"
    assert last.tailrace["weight_versions"] == [7, 8]
    assert last.choices[0].tailrace == {
        "weight_versions": [
            {"version": 7, "start": 0, "end": 1},
            {"version": 8, "start": 1, "end": 4},
        ],
        "untrainable": None,
    }
    (prompt,) = gateway.records(topics.PROMPTS, 1)
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert prompt.sampling == {"n": "1", "temperature": "0.7"}
    assert packing.unpack_ids(output.content.token_ids) == [11, 12, 13, 2]
    assert len(packing.unpack_logprobs(output.content.logprobs)) == 4
    assert [span.version for span in output.weight_versions] == [7, 8]
    assert output.untrainable is None and output.ttft_ms >= 0


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(gateway, stream):
    answer = gateway.chat(n=3, stream=stream)
    if stream:
        texts = ["", "", ""]
        for chunk in answer:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        texts = [choice.message.content for choice in answer.choices]
    assert texts == ["The river runs"] * 3
    assert [o.choice for o in gateway.records(topics.OUTPUTS, 3)] == [0, 1, 2]


def test_logprobs(gateway):
    answer = gateway.chat(logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert [entry.logprob for entry in content] == [-0.5, -1.25, -0.125, -0.0625]
    assert [len(entry.top_logprobs) for entry in content] == [2] * 4
    chunks = list(gateway.chat(logprobs=True, stream=True))
    shown = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [entry.logprob for entry in shown] == [-0.5, -1.25, -0.125, -0.0625]
    assert all(entry.top_logprobs == [] for entry in shown)


def test_text_completions(gateway, vllm):
    answer = gateway.openai.completions.create(
        model="smollm2-135m-instruct", prompt="The mill", max_tokens=8, logprobs=1
    )
    assert answer.choices[0].text == "The river runs"
    assert answer.choices[0].logprobs.token_logprobs == [-0.5, -1.25, -0.125, -0.0625]
    chunks = list(
        gateway.openai.completions.create(
            model="smollm2-135m-instruct", prompt=[5, 6], stream=True, max_tokens=8
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == "The river runs"
    assert vllm.asked[-1]["token_ids"] == [5, 6]
    assert len(gateway.records(topics.OUTPUTS, 2)) == 2


def test_metadata_says_what_headers_say(gateway):
    gateway.chat(
        metadata={
            "tailrace_session": "s",
            "tailrace_learn": "false",
            "tailrace_user": "a",
            "k": "v",
        }
    )
    (prompt,) = gateway.records(topics.PROMPTS, 1)
    assert (prompt.session_id, prompt.learn, prompt.user) == ("default:s", False, "a")
    assert prompt.tags == {"k": "v"}


def test_without_consent_nothing_may_be_learned(start):
    gateway = start(learn_default=False)
    gateway.chat(user="someone")
    (prompt,) = gateway.records(topics.PROMPTS, 1)
    assert (prompt.learn, prompt.user) == (False, "someone")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"top_p": 0.9}, "top_p"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 2}}, "logit_bias"),
        ({"temperature": 0}, "temperature"),
        ({"extra_body": {"top_k": 4}}, "top_k"),
        ({"extra_body": {"min_tokens": 4}}, "min_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_p": 1, "presence_penalty": 0, "seed": 4, "stop": ["x"], "max_tokens": 9}, None),
    ],
)
def test_what_reshapes_the_distribution_is_untrainable(gateway, changes, reason):
    answer = gateway.chat(**changes)
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert output.untrainable == reason
    assert answer.choices[0].tailrace["untrainable"] == reason
    assert output.content.token_ids


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        (None, "unknown_version"),
        ([{"version": "default", "start": 0, "end": 4}], "unknown_version"),
        ([{"version": "7", "start": 0, "end": 3}], "unaccounted_tokens"),
        ([{"version": "7", "start": 1, "end": 4}], "unaccounted_tokens"),
        ([], "unaccounted_tokens"),
    ],
)
def test_spans_that_do_not_add_up(gateway, vllm, spans, reason):
    vllm.spans = spans
    gateway.chat()
    assert gateway.records(topics.OUTPUTS, 1)[0].untrainable == reason


def test_a_token_without_a_logprob(gateway, vllm):
    vllm.tokens[1] = (12, " river", -9999.0)
    gateway.chat()
    assert gateway.records(topics.OUTPUTS, 1)[0].untrainable == "unaccounted_tokens"


def test_too_large_for_a_record_is_served_and_recorded_without_content(start):
    gateway = start(max_record_bytes=400)
    asked = [{"role": "user", "content": "water " * 200}]
    assert gateway.chat(messages=asked).choices[0].message.content == "The river runs"
    assert gateway.records(topics.PROMPTS, 1)[0].content is None
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert (output.untrainable, output.content) == ("too_large", None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves(gateway, vllm, stream):
    vllm.gate = threading.Event()
    body = json.dumps(
        {
            "model": "smollm2-135m-instruct",
            "stream": stream,
            "messages": [{"role": "user", "content": "Hi"}],
        }
    ).encode()
    with socket.create_connection(("127.0.0.1", gateway.served.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        if stream:
            received = b""
            while b"The" not in received:
                received += client.recv(4096)
        else:
            wait_until(lambda: vllm.asked, "the engine's request")
    (output,) = gateway.records(topics.OUTPUTS, 1)
    vllm.gate.set()
    assert output.untrainable == "client_left"
    assert output.finish_reason is None and output.error is None
    assert packing.unpack_ids(output.content.token_ids) == ([11] if stream else [])
    wait_until(vllm.left.is_set, "the engine to notice")


def test_serving_goes_on_without_kafka(start, log):
    log.down = True
    gateway = start()
    for _ in range(3):
        assert gateway.chat().choices[0].message.content == "The river runs"
    assert gateway.http.get("/readyz").json() == {"ready": True, "reason": None, "records": "spool"}
    log.down = False
    assert len(gateway.records(topics.OUTPUTS, 3)) == 3
    gateway.on_kafka()


def test_probes_and_models(gateway):
    assert gateway.http.get("/healthz").status_code == 200
    assert gateway.http.get("/readyz").status_code == 200
    gateway.chat()
    assert "tailrace_gateway_requests_total" in gateway.http.get("/metrics").text
    assert [model.id for model in gateway.openai.models.list()] == ["smollm2-135m-instruct"]
    assert gateway.openai.models.retrieve("smollm2-135m-instruct").owned_by == "tailrace"
