"""What the children are told."""

from __future__ import annotations

from pathlib import Path

from services.local.composition import Addresses, compose
from services.local.settings import Settings

PORTS = dict.fromkeys(("kafka", "redis", "gateway", "vllm"), 1)


def document(settings: Settings) -> dict[str, object]:
    ports = PORTS | {f"{service}_metrics": 2 for service in settings.services}
    addresses = Addresses.of(settings, ports)
    return compose(settings, addresses, Path("model"), "token")


def test_a_rewards_worker_keeps_its_name_on_the_embedded_broker_only() -> None:
    assert document(Settings())["rewards"]["instance"] == "local"  # type: ignore[index]
    shared = document(Settings(kafka="127.0.0.1:9092"))
    assert "instance" not in shared["rewards"]  # type: ignore[operator]
