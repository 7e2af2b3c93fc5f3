"""The guard in front of vLLM's routes: plain serving is open, all else needs the token."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
import re
from typing import Any

import pytest

from tailrace.plugins.admin import OPEN, TOKEN_VARIABLE, Guard

TOKEN = "0123456789abcdef"
ADMIN_ROUTES = [
    "/pause",
    "/resume",
    "/is_paused",
    "/init_weight_transfer_engine",
    "/start_weight_update",
    "/update_weights",
    "/finish_weight_update",
    "/update_weight_version",
    "/weight_info",
    "/weight_checker",
    "/abort_requests",
    "/inference/v1/abort_requests",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/sleep",
    "/server_info",
    "/scale_elastic_ep",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/adapters",
    "/start_profile",
    "/docs",
    "/openapi.json",
    "/a_route_of_tomorrow",
]
DODGES = ["//pause", "/pause/", "/v1/models/../../pause", "/v1/models/", "/PAUSE", "/health/..", ""]


def answer(
    path: str,
    headers: list[tuple[bytes, bytes]] = [],  # noqa: B006
    kind: str = "http",
) -> list[dict[str, Any]]:
    """What the guard sends for one request; ``passed`` when it went through."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "passed"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the guard reads no body")

    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(Guard(app)(scope, receive, send))
    return sent


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


@pytest.mark.parametrize("path", sorted(OPEN))
def test_serving_is_open(path: str) -> None:
    assert answer(path) == [{"type": "passed"}]


@pytest.mark.parametrize("path", ADMIN_ROUTES + DODGES)
def test_everything_else_is_closed(path: str) -> None:
    start, body = answer(path)
    assert start["status"] == 403
    assert b"permission_error" in body["body"]
    assert answer(path, [(b"x-tailrace-admin", TOKEN.encode())]) == [{"type": "passed"}]


@pytest.mark.parametrize(
    "values", [[b""], [b"0123456789abcdeF"], [TOKEN.encode(), b"x"], [b"\xff\xfe"], [b"0123"]]
)
def test_a_wrong_token(values: list[bytes]) -> None:
    assert answer("/pause", [(b"x-tailrace-admin", value) for value in values])[0]["status"] == 403


def test_without_a_token_in_the_environment_nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert answer("/pause", [(b"x-tailrace-admin", b"")])[0]["status"] == 403
    assert answer("/v1/models") == [{"type": "passed"}]


def test_web_sockets_are_closed_and_lifespan_passes() -> None:
    assert answer("/v1/realtime", kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert answer("/v1/models", kind="websocket")[0]["type"] == "websocket.close"
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    asyncio.run(Guard(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert asked == ["lifespan"]


def test_no_admin_route_of_todays_vllm_is_open() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    entrypoints = Path(spec.submodule_search_locations[0]) / "entrypoints"
    files = [entrypoints / "rl/online/api_router.py", *(entrypoints / "serve/dev").rglob("*.py")]
    text = "".join(file.read_text() for file in files)
    routes = set(re.findall(r'@router\.\w+\(\s*"([^"]+)"', text))
    assert {"/pause", "/update_weights", "/collective_rpc", "/reset_prefix_cache"} <= routes
    assert not routes & OPEN
