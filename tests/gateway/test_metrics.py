"""What the gateway counts of its answers and refusals."""

from __future__ import annotations

from prometheus_client import REGISTRY

from tailrace import topics
from tests.gateway.conftest import MODEL


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tailrace_gateway_{name}", labels) or 0.0


def test_only_a_streamed_answer_has_a_time_of_its_first_token(gateway):
    of_model = {"gen_ai_request_model": MODEL}
    before = [value(f"{name}_seconds_count", **of_model) for name in ("ttft", "request")]
    gateway.chat()
    list(gateway.chat(stream=True))
    gateway.records(topics.OUTPUTS, 2)
    after = [value(f"{name}_seconds_count", **of_model) for name in ("ttft", "request")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 2]


def test_tokens_are_counted_by_opentelemetry_s_types_and_under_the_model_s_own_name(gateway):
    labels = [{"gen_ai_token_type": t, "gen_ai_request_model": MODEL} for t in ("input", "output")]
    before = [value("tokens_total", **one) for one in labels]
    usage = gateway.chat().usage
    after = [value("tokens_total", **one) for one in labels]
    assert usage is not None
    assert [b - a for a, b in zip(before, after, strict=True)] == [
        usage.prompt_tokens,
        usage.completion_tokens,
    ]
    gateway.http.post("/v1/chat/completions", json={"model": "one of mine", "messages": []})
    assert "one of mine" not in gateway.http.get("/metrics").text


def test_every_refusal_is_counted_that_of_an_unknown_route_too(gateway):
    refused = {
        "unknown_url": lambda: gateway.http.get("/v1/nothing"),
        "model_not_found": lambda: gateway.http.get("/v1/models/nothing"),
    }
    for code, ask in refused.items():
        labels = {"http_response_status_code": "404", "error_type": code}
        before = value("refused_total", **labels)
        assert ask().status_code == 404
        assert value("refused_total", **labels) == before + 1


def test_how_full_the_spool_may_get_is_said(start):
    start(spool_bytes=12345)
    assert value("spool_limit_bytes") == 12345
