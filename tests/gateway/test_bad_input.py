"""Whatever comes in: OpenAI's error object, the right status, and the gateway lives on."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import openai
import pytest

from services.gateway import requests
from services.gateway.errors import ApiError
from tailrace import topics

MODEL = "smollm2-135m-instruct"
GOOD = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


def post(gateway, body, path="/v1/chat/completions", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = gateway.http.post(path, content=content, headers=headers)
    return response.status_code, response.json()["error"]


def test_every_wrong_request_gets_its_own_error(gateway, vllm):
    wrong = [
        (b"{", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
        (b'{"model": "\xff"}', 400, "invalid_json", None),
        (b'{"response_format": {"a": ' + b"[" * 100_000, 400, "invalid_json", None),
        ([GOOD], 400, "invalid_type", None),
        ({"model": MODEL}, 400, "invalid_type", None),
        (GOOD | {"model": "gpt-4"}, 404, "model_not_found", "model"),
        (GOOD | {"model": 4}, 400, "invalid_type", "model"),
        (GOOD | {"temperature": "hot"}, 400, "invalid_type", "temperature"),
        (GOOD | {"temperature": True}, 400, "invalid_type", "temperature"),
        (GOOD | {"temperature": -1}, 400, "invalid_value", "temperature"),
        (GOOD | {"top_p": 0}, 400, "invalid_value", "top_p"),
        (GOOD | {"n": 0}, 400, "invalid_value", "n"),
        (GOOD | {"n": 100_000}, 400, "invalid_value", "n"),
        (GOOD | {"n": 2.5}, 400, "invalid_type", "n"),
        (GOOD | {"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        (GOOD | {"seed": 10**40}, 400, None, "seed"),
        (GOOD | {"stop": [""]}, 400, "invalid_value", "stop"),
        (GOOD | {"logit_bias": {"x": 1}}, 400, "invalid_value", "logit_bias"),
        (GOOD | {"logit_bias": {"999999999": 1}}, 400, "invalid_value", "logit_bias"),
        (GOOD | {"top_logprobs": 3}, 400, "invalid_value", "top_logprobs"),
        (GOOD | {"temprature": 1}, 400, "unknown_parameter", "temprature"),
        (GOOD | {"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        (GOOD | {"messages": []}, 400, "invalid_value", "messages"),
        (GOOD | {"messages": "Hi"}, 400, "invalid_type", "messages"),
        (GOOD | {"messages": [{"role": "king", "content": ""}]}, 400, "invalid_value", None),
        (GOOD | {"messages": [{"role": "user", "content": 4}]}, 400, "invalid_type", None),
        (GOOD | {"metadata": {"tailrace_learn": "perhaps"}}, 400, "invalid_value", None),
        (GOOD | {"metadata": {"tailrace_session": "a b"}}, 400, "id", None),
        (GOOD | {"metadata": {"tailrace_session": "acme:chat"}}, 403, "foreign", None),
        (GOOD | {"metadata": {"k": "v" * 20_000}}, 400, "invalid_value", "metadata"),
        (GOOD | {"user": "u" * 2_000}, 400, "invalid_value", "user"),
        (GOOD | {"metadata": {"tailrace_task": "t" * 2_000}}, 400, "invalid_value", "task"),
        (GOOD | {"stop": "\u00e9" * 100_000}, 400, "invalid_value", "stop"),
        (GOOD | {"response_format": {"type": "xml"}}, 400, "invalid_value", "response_format"),
    ]
    for body, status, code, param in wrong:
        got, error = post(gateway, body)
        assert got == status, (body[:80] if isinstance(body, bytes) else body, error)
        assert code is None or error["code"] == code, (body, error)
        assert param is None or error["param"] == param, (body, error)
        assert error["message"] and error["type"]
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]
    got, error = post(gateway, GOOD | {"messages": [{"role": "user", "content": picture}]})
    assert (got, error["code"]) == (400, "unsupported_parameter")
    assert vllm.asked == []
    assert gateway.chat().choices[0].message.content == "The river runs"
    assert len(gateway.records(topics.PROMPTS, 1)) == 1


def test_wrong_text_requests(gateway):
    for body in (
        {"prompt": ""},
        {"prompt": ["a", "b"]},
        {"prompt": [1, "b"]},
        {"prompt": [-1]},
        {},
    ):
        got, error = post(gateway, {"model": MODEL} | body, "/v1/completions")
        assert (got, error["type"]) == (400, "invalid_request_error"), body
    got, error = post(gateway, {"model": MODEL, "prompt": "x", "echo": True}, "/v1/completions")
    assert (got, error["code"]) == (400, "unsupported_parameter")


def test_ten_megabytes(gateway):
    text = "x" * 10_000_000
    for path in ("/v1/chat/completions", "/v1/feedback"):
        got, error = post(gateway, GOOD | {"user": text}, path)
        assert (got, error["code"]) == (413, "body_too_large")
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.chat(messages=[{"role": "user", "content": text}])
    assert caught.value.status_code == 413


def test_unknown_routes_and_methods(gateway):
    assert gateway.http.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    response = gateway.http.get("/v1/chat/completions")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "unknown_url")
    with pytest.raises(openai.NotFoundError):
        gateway.openai.models.retrieve("other")


def test_keys(start):
    gateway = start(keys={"sk-acme": "acme", "sk-other": "other"})
    with pytest.raises(openai.AuthenticationError):
        gateway.chat()
    for path in ("/v1/models", "/v1/feedback/x"):
        assert gateway.http.get(path).status_code == 401
    assert gateway.http.get("/healthz").status_code == 200
    key = {"authorization": "Bearer sk-acme"}
    answer = gateway.chat(extra_headers=key | {"x-tailrace-session": "s"})
    assert answer.id.startswith("acme:s~")
    (prompt,) = gateway.records(topics.PROMPTS, 1)
    assert prompt.tenant == "acme" and prompt.principal and "sk-acme" not in prompt.principal
    said = {"metric_name": "thumbs", "value": True, "inference_id": answer.id}
    got, error = post(gateway, said, "/v1/feedback", authorization="Bearer sk-other")
    assert (got, error["code"]) == (403, "foreign")
    sent = gateway.http.post("/v1/feedback", json=said, headers=key)
    assert sent.status_code == 202
    (record,) = gateway.records(topics.FEEDBACK, 1)
    assert (record.tenant, record.principal) == ("acme", prompt.principal)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(requests.ChatBody.__struct_fields__), _json, max_size=6)
    | st.binary(max_size=40)
)
def test_no_body_is_a_surprise(body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        decoded = requests.decode(content, requests.ChatBody)
        requests.plain(decoded)
    except ApiError as error:
        assert error.status == 400
