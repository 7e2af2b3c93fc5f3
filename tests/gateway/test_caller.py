"""Sessions as clients name them."""

from __future__ import annotations

import pytest

from tailrace import ids
from tailrace.errors import InvalidRecord


@pytest.mark.parametrize(
    "named", ["s~01HF7YAT00000", "default:s~01HF7YAT00000", "s!x", "rollouts.0123456789ab.7"]
)
def test_an_interaction_or_a_group_of_rollouts_is_no_session(named):
    with pytest.raises(InvalidRecord):
        ids.claim_session(named, "default")


def test_over_http(gateway):
    asked = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    for session, status in (("s~01HF7YAT00000", 400), ("acme:s", 403), ("default:s", 200)):
        response = gateway.http.post(
            "/v1/chat/completions", json=asked, headers={"x-tailrace-session": session}
        )
        assert response.status_code == status
