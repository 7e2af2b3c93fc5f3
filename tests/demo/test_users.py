"""The simulated users over HTTP: they ask, vote, try again, and count what failed."""

from collections.abc import Iterator
import json
import signal
import subprocess
import sys

import msgspec
import pytest

from services.local.lines import Line
from tests.demo.stub import TEXT, Gateway

FAST = json.dumps({"delay_median_s": 0.01, "silent": 0.3})


def _start(url: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.local.users", "--url", f"{url}/v1", "--model", "m"]
    return subprocess.Popen(
        [*command, "--manner", FAST, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _lines(users: subprocess.Popen[bytes], until: int) -> Iterator[Line]:
    """Lines until so many answers or failures came; then the users are stopped, and the rest."""
    assert users.stdout is not None
    seen = 0
    for text in users.stdout:
        line = msgspec.json.decode(text, type=Line)
        seen += line.kind in ("answer", "failed")
        if seen == until and line.kind != "end":
            users.send_signal(signal.SIGTERM)
        yield line


def _run(gateway: Gateway, *options: str, until: int = 40) -> list[Line]:
    users = _start(gateway.url, *options)
    lines = list(_lines(users, until))
    _, errors = users.communicate(timeout=20)
    gateway.close()
    assert users.returncode == 0, errors.decode()
    return lines


def _kind(lines: list[Line], kind: str) -> list[Line]:
    return [line for line in lines if line.kind == kind]


def test_users_ask_judge_and_vote_through_the_public_api() -> None:
    gateway = Gateway()
    lines = _run(gateway, "--rate", "200", "--in-flight", "3", until=60)
    answers, votes = _kind(lines, "answer"), _kind(lines, "vote")
    assert _kind(lines, "failed") == []
    assert lines[-1].kind == "end"
    assert {line.streamed for line in answers} == {True, False}
    assert all(line.text == TEXT and line.finish == "stop" and line.liked for line in answers)
    assert len(votes) == len(gateway.votes) == sum(not line.silent for line in answers)
    assert {line.feedback_id for line in votes} == {
        f"{vote['inference_id']}!{vote['feedback_id']}" for vote in gateway.votes
    }
    assert all(line.value != line.wrong for line in votes)
    assert set(gateway.learn) == {"true"}
    assert gateway.most_in_flight <= 3


def test_a_vote_is_retried_under_the_same_id() -> None:
    gateway = Gateway(vote_failures=1)
    lines = _run(gateway, "--rate", "50", until=10)
    first = gateway.votes[0]["feedback_id"]
    assert [vote["feedback_id"] for vote in gateway.votes].count(first) == 2
    votes = _kind(lines, "vote")
    assert sorted(line.attempts for line in votes)[-1] == 2
    assert len({line.feedback_id for line in votes}) == len(votes)


def test_failures_are_counted_and_do_not_end_the_users() -> None:
    lines = _run(Gateway(chat_status=500), "--rate", "100", until=3)
    failed = _kind(lines, "failed")
    assert len(failed) >= 3
    assert {line.what for line in failed} == {"chat"}
    assert "500" in failed[0].error


@pytest.mark.parametrize("taste", ["short", "lively"])
def test_the_taste_decides_what_is_liked(taste: str) -> None:
    lines = _run(Gateway(), "--taste", taste, "--rate", "100", until=4)
    assert {line.liked for line in _kind(lines, "answer")} == {taste == "short"}
