"""Publishers and subscribers with keys."""

from __future__ import annotations

from pathlib import Path

from tailrace.weights.publisher import Publisher
from tailrace.weights.subscriber import Subscriber
from tests.weights.conftest import MODEL, Channel


def public(*files: Path) -> list[Path]:
    """The public keys beside private ones."""
    return [file.with_name(file.name + ".pub") for file in files]


def open_publisher(
    channel: Channel, key: Path | None, *trusted: Path, unsigned_to: int | None = None
) -> Publisher:
    made = Publisher(
        channel.log,
        channel.wire,
        model=MODEL,
        prefix=channel.prefix,
        signing_key=key,
        trust=public(*trusted),
        unsigned_to=unsigned_to,
    )
    channel._open.append(made)
    return made


def open_subscriber(channel: Channel, *trusted: Path) -> Subscriber:
    subscriber = Subscriber(
        channel.log, channel.wire, model=MODEL, prefix=channel.prefix, trust=public(*trusted)
    )
    channel._open.append(subscriber)
    subscriber.catch_up()
    return subscriber
