"""The admin API over HTTP: what each kind of answer becomes."""

from __future__ import annotations

from collections.abc import Callable
import json
import math

import httpx
import pytest

from services.engine.admin import Gone, HttpAdmin, Refused, Unanswered
from services.engine.canary import check
from services.local.ports import free_port
from tailrace.events import ModelUpdate
from tests.engine.models import canary

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def admin() -> HttpAdmin:
    return HttpAdmin("http://127.0.0.1:1", "secret", model="tiny", read_s=0.2)


def answer(admin: HttpAdmin, what: Answer) -> None:
    admin._client.close()
    admin._client = httpx.Client(
        base_url="http://vllm", headers=admin._client.headers, transport=httpx.MockTransport(what)
    )


def test_paths_and_bodies(admin: HttpAdmin) -> None:
    seen: list[tuple[str, str, object]] = []

    def what(request: httpx.Request) -> httpx.Response:
        assert request.headers["x-tailrace-admin"] == "secret"
        body = json.loads(request.content) if request.content else None
        seen.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(200, json={"weight_version": "7", "is_paused": True})

    answer(admin, what)
    admin.pause()
    admin.start()
    admin.update("/dev/shm/x", "d")
    admin.finish("7")
    admin.label("8")
    admin.resume()
    assert admin.weight_info() == "7" and admin.is_paused()
    assert seen == [
        ("POST", "/pause?mode=keep&clear_cache=true", None),
        ("POST", "/start_weight_update", {}),
        ("POST", "/update_weights", {"update_info": {"path": "/dev/shm/x", "digest": "d"}}),
        ("POST", "/finish_weight_update", {"weight_version": "7"}),
        ("POST", "/update_weight_version", {"new_version": "8"}),
        ("POST", "/resume", None),
        ("GET", "/weight_info", None),
        ("GET", "/is_paused", None),
    ]


def test_tokens_are_those_of_prompts_and_answers(admin: HttpAdmin) -> None:
    said = """# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 200.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e9
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 34.0
vllm:generation_tokens_total{engine="1",model_name="m"} 1.0
"""
    answer(admin, lambda request: httpx.Response(200, text=said))
    assert admin.tokens() == 235.0


def test_troubles(admin: HttpAdmin) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text="already active")

    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late")

    answer(admin, refuse)
    with pytest.raises(Refused, match="500 already active"):
        admin.start()
    assert not admin.healthy()
    answer(admin, late)
    with pytest.raises(Unanswered):
        admin.start()
    with pytest.raises(Gone):
        HttpAdmin(f"http://127.0.0.1:{free_port()}", "", model="tiny").weight_info()


def test_score(admin: HttpAdmin) -> None:
    def what(request: httpx.Request) -> httpx.Response:
        entries = [None, {"2": {"logprob": -0.5}, "9": {"logprob": -0.1}}, {"3": {"logprob": -2}}]
        return httpx.Response(200, json={"prompt_logprobs": entries})

    answer(admin, what)
    assert admin.score([1, 2, 3]) == [-0.5, -2.0]
    with pytest.raises(Refused, match="3 logprobs for 4 tokens"):
        admin.score([1, 2, 3, 4])


def test_a_model_that_gives_nan_fails_its_canary(admin: HttpAdmin) -> None:
    text = '{"error":{"message":"Out of range float values are not JSON compliant"}}'
    answer(admin, lambda request: httpx.Response(400, text=text))
    assert all(math.isnan(value) for value in admin.score([1, 2, 3]))
    update = ModelUpdate(version=1, created_ms=1, canary=canary([-1.0, -1.0]))
    wrong, note = check(admin, update, 0.3)
    assert wrong and note is not None and "nan" in note
    answer(admin, lambda request: httpx.Response(400, text="too long"))
    wrong, note = check(admin, update, 0.3)
    assert not wrong and note == "canary: unknown, /inference/v1/generate: 400 too long"


def test_what_an_attached_vllm_lacks_is_said(admin: HttpAdmin) -> None:
    def vllm(
        *, guard: bool = True, dev: bool = True, plugin: bool = True, token: str = "secret"
    ) -> Answer:
        def what(request: httpx.Request) -> httpx.Response:
            if guard and request.headers["x-tailrace-admin"] != token:
                return httpx.Response(403, text="admin_only")
            if not dev:
                return httpx.Response(404, text="Not Found")
            if request.url.path == "/init_weight_transfer_engine" and not plugin:
                return httpx.Response(500, text="Weight transfer not configured")
            return httpx.Response(200, json={"weight_version": "default"})

        return what

    answer(admin, vllm())
    assert admin.missing() is None
    for lacking, word in (
        (vllm(guard=False), "--middleware tailrace.plugins.admin.Guard"),
        (vllm(token="another"), "engine.admin_token is not"),
        (vllm(dev=False), "VLLM_SERVER_DEV_MODE=1"),
        (vllm(guard=False, dev=False), "VLLM_SERVER_DEV_MODE=1"),
        (vllm(plugin=False), """--weight-transfer-config '{"backend": "tailrace"}'"""),
    ):
        answer(admin, lacking)
        assert word in str(admin.missing())
