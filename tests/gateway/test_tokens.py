"""Browser tokens: what a page may do without a key, and what it may not."""

from __future__ import annotations

import json
import stat

import httpx
from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.gateway.errors import ApiError
from services.gateway.tokens import LONGEST_S, Tokens, made_key
from tailrace import topics
from tailrace.errors import SettingsError

KEY, OLD = b"k" * 32, b"o" * 32
TURN = "default:chat~01HF7YAT00000"
BEARER = {"authorization": "Bearer sk-acme"}


class Clock:
    now_ms = 1_790_000_000_000

    def __call__(self):
        return self.now_ms


def tokens(*keys, clock=None, ttl_s=60):
    return Tokens(keys or (KEY,), ttl_s=ttl_s, now_ms=clock or Clock())


def refused(token, reader):
    with pytest.raises(ApiError) as caught:
        reader.read(token)
    assert caught.value.status == 401
    return caught.value.code


def test_what_was_granted_is_read_back():
    token, grant = tokens().issue(TURN, metrics=["thumbs"], user="ä", principal="p", ttl_s=5)
    assert tokens().read(token) == grant
    assert (grant.interaction, grant.metrics, grant.user) == (TURN, ("thumbs",), "ä")
    assert token.startswith("trt1.") and token.isascii()


def test_it_ends():
    clock = Clock()
    token, _ = tokens(clock=clock).issue(TURN)
    clock.now_ms += 59_999
    assert tokens(clock=clock).read(token)
    clock.now_ms += 1
    assert refused(token, tokens(clock=clock)) == "token_expired"


@given(st.data())
def test_forged_by_one_character(data):
    token, _ = tokens().issue(TURN)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("Aaz09-_.=! é").filter(lambda c: c != token[at]))
    assert refused(token[:at] + letter + token[at + 1 :], tokens()) == "invalid_token"


@given(st.text(max_size=40).map("trt1.".__add__) | st.text(max_size=20))
def test_nonsense_is_refused(text):
    assert refused(text, tokens()) == "invalid_token"


def test_keys_are_changed_by_putting_one_in_front():
    token, _ = tokens(OLD).issue(TURN)
    assert tokens(KEY, OLD).read(token)
    assert refused(token, tokens(KEY)) == "invalid_token"


def test_bounds():
    for ttl_s in (0, LONGEST_S + 1):
        with pytest.raises(ApiError):
            tokens().issue(TURN, ttl_s=ttl_s)
        with pytest.raises(ValueError):
            tokens(ttl_s=ttl_s)
    with pytest.raises(ApiError):
        tokens().issue(TURN, user="u" * 2_000)
    with pytest.raises(ValueError):
        tokens(b"short")


def test_a_made_key_stays(tmp_path):
    file = tmp_path / "gateway" / "token.key"
    key = made_key(file)
    assert made_key(file) == key and len(key) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_wrong_settings_are_said(start, tmp_path):
    for number, wrong in enumerate(
        (
            {"token_keys": ("short",)},
            {"token_ttl_s": 0},
            {"origins": ("https://example.com/",)},
            {"metrics": {"stars": "numbers"}},
        )
    ):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            start(**wrong, state_dir=tmp_path / str(number))


# -- a page


class Page:
    """A browser that holds nothing but a token."""

    def __init__(self, gateway, **asked):
        self.answer = gateway.chat(extra_headers=BEARER | {"x-tailrace-session": "s"})
        made = gateway.http.post(
            "/v1/feedback/tokens", json={"inference_id": self.answer.id} | asked, headers=BEARER
        )
        assert made.status_code == 201, made.text
        assert made.json()["expires"].endswith("Z")
        self.token = made.json()["token"]
        self.http = httpx.Client(
            base_url=gateway.url,
            headers={"authorization": f"Bearer {self.token}"},
            trust_env=False,
        )

    def give(self, **changes):
        said = {"metric_name": "thumbs", "value": True, "inference_id": self.answer.id} | changes
        said = {k: v for k, v in said.items() if v is not ...}
        return code(self.http.post("/v1/feedback", json=said))


def code(response):
    if response.status_code == 202:
        return 202
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def keyed(start):
    return start(keys={"sk-acme": "acme"})


def test_a_page_gives_feedback_without_a_key(keyed):
    page = Page(keyed, user="u1", metrics=["thumbs", "copied"])
    assert page.give(feedback_id="a") == 202
    assert page.give(metric_name="copied", source="implicit") == 202
    own = f"/v1/feedback/{page.answer.id}!a"
    assert page.http.get(own).status_code == 503
    assert page.http.delete(own).status_code == 202
    assert page.give(action="retract", replaces="a", metric_name=..., value=...) == 202
    records = keyed.records(topics.FEEDBACK, 4)
    (prompt,) = keyed.records(topics.PROMPTS, 1)
    assert {r.interaction_id for r in records} == {page.answer.id}
    assert {(r.tenant, r.user, r.principal) for r in records} == {("acme", "u1", prompt.principal)}
    assert {r.source for r in records} == {"user", "implicit"}
    page.http.close()


def test_what_a_page_may_not(keyed):
    page = Page(keyed, user="u1", metrics=["thumbs"])
    other = keyed.chat(extra_headers=BEARER | {"x-tailrace-session": "s"}).id
    assert page.give(inference_id=other) == (403, "token_subject")
    assert page.give(inference_id=..., episode_id="s") == (403, "token_subject")
    assert page.give(inference_id="default:s~0000000000000") == (403, "foreign")
    assert page.give(replaces="acme:s!x") == (400, "id")
    assert page.give(metric_name="stars", value=1) == (403, "token_metric")
    assert page.give(user="u2") == (403, "token_user")
    assert page.give(source="grader", grader="me") == (403, "token_source")
    said = {"metric_name": "thumbs", "value": True, "inference_id": page.answer.id}
    many = page.http.post("/v1/feedback", json=[said, said | {"metric_name": "stars"}])
    assert (many.status_code, many.json()["error"]["param"]) == (403, "[1]")
    assert code(page.http.delete(f"/v1/feedback/{other}!x")) == (403, "token_subject")
    assert code(page.http.delete("/v1/feedback/acme:s!x")) == (403, "token_subject")
    assert code(page.http.get(f"/v1/feedback/{other}!x")) == (403, "token_subject")
    for path in ("/v1/models", "/v1/feedback/tokens", "/v1/chat/completions"):
        send = page.http.get if path == "/v1/models" else page.http.post
        assert code(send(path)) == (401, "invalid_api_key")
    page.http.headers["authorization"] = f"Bearer {page.token[:-1]}"
    assert page.give() == (401, "invalid_token")
    assert keyed.records(topics.FEEDBACK, 0) == []
    page.http.close()


def test_a_token_in_the_query_for_beacons(keyed):
    page = Page(keyed)
    said = {"metric_name": "thumbs", "value": True, "inference_id": page.answer.id}
    plain = {"content-type": "text/plain;charset=UTF-8"}
    sent = keyed.http.post(
        f"/v1/feedback?token={page.token}", content=json.dumps(said), headers=plain
    )
    assert sent.status_code == 202
    assert code(keyed.http.post("/v1/feedback?token=x", json=said)) == (401, "invalid_token")
    page.http.close()


def test_a_token_comes_with_the_answer(start):
    gateway = start(keys={"sk-acme": "acme"})
    asked = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hi"}]}
    for changes in ({}, {"stream": True}):
        answer = gateway.http.post(
            "/v1/chat/completions",
            json=asked | {"user": "u1"} | changes,
            headers=BEARER | {"x-tailrace-feedback-token": "true"},
        )
        token = answer.headers["x-tailrace-feedback-token"]
        said = {"metric_name": "thumbs", "value": True}
        said["inference_id"] = answer.headers["x-tailrace-interaction-id"]
        sent = gateway.http.post(
            "/v1/feedback", json=said, headers={"authorization": f"Bearer {token}"}
        )
        assert sent.status_code == 202
    assert {r.user for r in gateway.records(topics.FEEDBACK, 2)} == {"u1"}
    plain = gateway.http.post("/v1/chat/completions", json=asked, headers=BEARER)
    assert "x-tailrace-feedback-token" not in plain.headers


def test_which_tokens_are_made(keyed):
    def ask(**asked):
        return code(keyed.http.post("/v1/feedback/tokens", json=asked, headers=BEARER))

    turn = keyed.chat(extra_headers=BEARER).id
    assert ask(inference_id=turn, expires_in_s=LONGEST_S + 1) == (400, "invalid_value")
    assert ask(inference_id=f"{turn}!x") == (400, "invalid_value")
    assert ask(inference_id="acme:s") == (400, "invalid_value")
    assert ask(inference_id="other:s~0000000000000") == (403, "foreign")
    assert ask(inference_id="acme:s~0000000000000") == (400, "impossible")
    assert ask(inference_id=turn, metric="thumbs") == (400, "unknown_parameter")
    assert ask() == (400, "invalid_type")
    no_key = keyed.http.post("/v1/feedback/tokens", json={"inference_id": turn})
    assert code(no_key) == (401, "invalid_api_key")


def test_a_restart_keeps_the_made_key(start):
    gateway = start(keys={"sk-acme": "acme"})
    page = Page(gateway)
    page.http.close()
    gateway.stop()
    again = start(keys={"sk-acme": "acme"})
    said = {"metric_name": "thumbs", "value": True, "inference_id": page.answer.id}
    assert code(again.http.post(f"/v1/feedback?token={page.token}", json=said)) == 202


# -- other origins


def preflight(gateway, origin, path="/v1/feedback"):
    return gateway.http.options(
        path,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )


def test_no_other_origin_by_default(gateway):
    answer = preflight(gateway, "https://app.example.com")
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_allowed_origins_alone_and_feedback_alone(start):
    gateway = start(origins=("https://app.example.com",))
    answer = preflight(gateway, "https://app.example.com")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    own = preflight(gateway, "https://app.example.com", "/v1/feedback/default:s!x")
    assert own.status_code == 200
    other = preflight(gateway, "https://other.example.com")
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    chat = preflight(gateway, "https://app.example.com", "/v1/chat/completions")
    assert chat.status_code == 405 and "access-control-allow-origin" not in chat.headers
    refused = gateway.http.post(
        "/v1/feedback", content=b"{", headers={"origin": "https://app.example.com"}
    )
    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == "https://app.example.com"
