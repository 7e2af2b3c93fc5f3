"""Pages of other origins that may ask the model: the dashboard's."""

from __future__ import annotations

import pytest

from tailrace.errors import SettingsError

PAGE = "http://127.0.0.1:8090"
APP = "https://app.example.com"


def preflight(gateway, origin, path):
    return gateway.http.options(
        path,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-tailrace-session",
        },
    )


def asked(gateway, origin):
    body = {"model": gateway.settings.model, "messages": [{"role": "user", "content": "Hi"}]}
    return gateway.http.post("/v1/chat/completions", json=body, headers={"origin": origin})


def test_a_page_that_is_named_may_ask_and_read_the_id(start):
    gateway = start(cors_origins=(PAGE,))
    assert preflight(gateway, PAGE, "/v1/chat/completions").status_code == 200
    answer = asked(gateway, PAGE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-tailrace-interaction-id" in answer.headers["access-control-expose-headers"]
    assert preflight(gateway, PAGE, "/v1/feedback").status_code == 200


def test_another_page_may_not(start):
    gateway = start(cors_origins=(PAGE,))
    for path in ("/v1/chat/completions", "/v1/feedback"):
        refused = preflight(gateway, "http://evil.example", path)
        assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in asked(gateway, "http://evil.example").headers


def test_origins_of_feedback_stay_as_they_are(start):
    gateway = start(cors_origins=(PAGE,), origins=(APP,))
    assert "access-control-allow-origin" not in asked(gateway, APP).headers
    said = gateway.http.post("/v1/feedback", content=b"{", headers={"origin": APP})
    assert said.headers["access-control-allow-origin"] == APP
    said = gateway.http.post("/v1/feedback", content=b"{", headers={"origin": PAGE})
    assert said.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["*", "127.0.0.1:8090", f"{PAGE}/"])
def test_only_origins_are_named(start, origin):
    with pytest.raises(SettingsError, match="cors_origins"):
        start(cors_origins=(origin,))
