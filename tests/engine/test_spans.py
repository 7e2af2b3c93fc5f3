"""A real vLLM that is told of a collector: its span is a child of the gateway's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.engine.real import real_vllm
from tests.traces.receiver import TRACE, context_of, receiving

pytestmark = pytest.mark.soak


def test_vllm_s_span_is_a_child_of_the_request_s(tiny_model: Path, tmp_path: Path) -> None:
    with receiving() as receiver:
        with real_vllm(tiny_model, tmp_path, otlp_endpoint=receiver.url) as vllm:
            asked = {"token_ids": [3, 4, 5], "sampling_params": {"max_tokens": 4}}
            answer = httpx.post(
                f"{vllm.url}/inference/v1/generate",
                json=asked,
                headers={"traceparent": TRACE},
                timeout=60,
                trust_env=False,
            )
            assert answer.status_code == 200
            receiver.spans(1)
        spans = [span for span in receiver.spans(1) if span.name == "llm_request"]
    [span] = spans
    assert span.service == "tailrace-vllm"
    assert f"{span.trace}-{span.parent}" == context_of(TRACE)
    assert span.attributes["gen_ai.usage.completion_tokens"] == 4
