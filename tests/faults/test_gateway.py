"""The whole way from a 202 to a receipt, over a gateway that dies and a Redis that goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import signal
import time

import pytest

from tests.conftest import TestRedis
from tests.faults.gateway import NOBODY, Gateway
from tests.faults.machine import Machine
from tests.gateway.fakevllm import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[TestRedis]:
    """Others share the run's Redis."""
    (tmp_path / "redis").mkdir()
    server = TestRedis(tmp_path / "redis")
    yield server
    server.stop()


def promised(machine: Machine, tokens: set[str]) -> None:
    """What was answered with 202 has an outcome, one for each time it lies on the log."""
    outcomes = machine.bench.outcomes()
    assert outcomes.keys() >= tokens
    for token in tokens:
        # What was on its way when the gateway died lies there twice.
        assert set(outcomes[token][1:]) <= {"duplicate"}, (token, outcomes[token])
        assert outcomes[token][0] in ("joined", "corrected"), (token, outcomes[token])


def test_the_gateway_is_killed_between_spool_and_log(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    machine.start("a")
    gateway = Gateway(tmp_path, tiny_model, machine.prefix, None)
    try:
        gateway.start(NOBODY)
        gateway.await_records_on("spool")
        tokens = {f"t{number}" for number in range(20)}
        turns = [gateway.chat() for _ in range(5)]
        for number in range(20):
            assert gateway.thumb(turns[number % 5], f"t{number}") == 202
        gateway.kill()
        gateway.start(machine.bootstrap, point=4)  # on Kafka, not yet off the spool
        wait_until(lambda: gateway.ended() is not None, "its end")
        assert gateway.ended() == -signal.SIGKILL
        gateway.start(machine.bootstrap)
        gateway.await_records_on("kafka")
        machine.end()
        promised(machine, tokens)
    finally:
        gateway.close()


def test_redis_is_killed(
    machine: Machine, own_redis: TestRedis, tmp_path: Path, tiny_model: Path
) -> None:
    machine.start("a")
    gateway = Gateway(tmp_path, tiny_model, machine.prefix, own_redis.url)
    try:
        gateway.start(machine.bootstrap)
        gateway.await_records_on("kafka")
        interaction, tokens = gateway.chat(), set[str]()
        for number in range(12):
            if number == 4:
                own_redis.kill()
            if number == 8:
                own_redis.start()
            tokens.add(f"t{number}")
            assert gateway.thumb(interaction, f"t{number}") == 202
        machine.end()
        promised(machine, tokens)
        until = time.monotonic() + 20
        while gateway.fate(f"{interaction}!t5").json().get("outcome") not in (
            "joined",
            "corrected",
        ):
            assert time.monotonic() < until, gateway.fate(f"{interaction}!t5").text
            time.sleep(0.1)
    finally:
        gateway.close()
