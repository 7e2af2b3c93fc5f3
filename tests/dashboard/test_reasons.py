"""``/api/why`` without a server: who waits, what is read, and what is said of what fails."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from services.dashboard.errors import ApiError
from services.dashboard.reasons import Reasons
from services.dashboard.settings import Settings
from tailrace.errors import LogError, SettingsError
from tailrace.log.memory import MemoryLog
from tests.dashboard.life import Life


class Held(MemoryLog):
    """A log that answers nobody until it is let go, and then with an error."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fails: Exception | None = None
        self.free = threading.Event()

    def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        if self.fails is None:
            return super().offsets_at(topic, time_ms)
        self.asked += 1
        self.free.wait(20)
        raise self.fails


async def told(reasons: Reasons, subject: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await reasons.of(subject)
    return caught.value


def test_who_gave_up_waiting_for_a_turn_is_not_read_for() -> None:
    log = Held()
    turn = Life(log).learn(1.0, 1)
    log.fails = LogError("gone")

    async def asking() -> tuple[list[int], int]:
        reasons = Reasons(Settings(why_timeout_s=0.5, why_at_once=1), log)
        statuses = [(await told(reasons, turn)).status]
        statuses += [e.status for e in await asyncio.gather(*(told(reasons, turn) for _ in "abc"))]
        log.free.set()
        return statuses, (await told(reasons, turn)).status

    assert asyncio.run(asking()) == ([504] * 4, 503)
    assert log.asked == 2  # the first, which could not be broken off, and the last


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SettingsError("password=secret"), "a setting of the dashboard"),
        (RuntimeError("password=secret"), "internal error"),
    ],
)
def test_what_is_wrong_here_is_logged_and_not_told(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = Held()
    turn = Life(log).learn(1.0, 1)
    log.fails = error
    log.free.set()
    with caplog.at_level(logging.ERROR):
        found = asyncio.run(told(Reasons(Settings(), log), turn))
    assert found.status == 500 and message in found.message and "secret" not in found.message
    assert "password=secret" in caplog.text
