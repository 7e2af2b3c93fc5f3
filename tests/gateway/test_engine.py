"""The engine refuses, breaks down or is away: what the client sees and what is recorded."""

from __future__ import annotations

import socket
import threading

import openai
import pytest

from tailrace import topics
from tests.gateway.fakevllm import FakeVllm, Served


def test_the_engine_refuses_a_request(gateway, vllm):
    vllm.refuse = [(400, "the prompt is longer than the model's 1024 tokens")]
    with pytest.raises(openai.BadRequestError, match="longer than the model") as caught:
        gateway.chat()
    assert caught.value.code == "engine_refused"
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert output.error == "engine_refused"


def test_an_engine_that_broke_down_over_a_request_gets_it_once_more(gateway, vllm):
    vllm.refuse = [(500, "boom")]
    assert gateway.chat().choices[0].message.content == "The river runs"
    assert len(vllm.asked) == 2 and gateway.records(topics.OUTPUTS, 1)[0].error is None


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_fails(gateway, vllm, stream):
    vllm.refuse = [(500, "boom")] * 3
    with pytest.raises(openai.InternalServerError, match="boom") as caught:
        gateway.chat(stream=stream)
    assert caught.value.status_code == 502
    assert caught.value.response.headers["x-tailrace-interaction-id"]
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert output.error == "engine_error"


def test_the_engine_breaks_off_a_stream(gateway, vllm):
    vllm.break_after = 2
    chunks = []
    with pytest.raises(openai.APIError, match="engine"):
        for chunk in gateway.chat(stream=True):
            chunks.append(chunk)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "The river"
    (output,) = gateway.records(topics.OUTPUTS, 1)
    assert output.error == "engine_broke_off" and output.untrainable == "unknown_version"


def test_a_restarting_engine_is_waited_for(start):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gateway = start(engine_url=f"http://127.0.0.1:{port}", engine_wait_s=20.0)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat()))
    asking.start()
    gateway.records(topics.PROMPTS, 1)
    vllm = FakeVllm()
    vllm.refuse = [(503, "starting")]
    late = Served(vllm.app, port)
    asking.join(20)
    late.stop()
    assert answers[0].choices[0].message.content == "The river runs"
    assert gateway.records(topics.OUTPUTS, 1)[0].error is None


def test_no_engine_at_all(start):
    gateway = start(engine_url="http://127.0.0.1:9", engine_wait_s=0.2)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.chat()
    assert caught.value.status_code == 503 and caught.value.code == "engine_unavailable"
    assert caught.value.response.headers["retry-after"]
    assert gateway.http.get("/readyz").status_code == 503
    assert gateway.records(topics.OUTPUTS, 1)[0].error == "engine_unavailable"
