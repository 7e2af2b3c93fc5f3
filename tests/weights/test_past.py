"""Manifests of a trainer's own that it cannot read when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import topics
from tailrace.errors import SettingsError
from tailrace.events import ModelUpdate
from tailrace.stream import event_headers
from tailrace.weights.publisher import Publisher
from tailrace.weights.trust import Signer
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, trained


def _publisher(
    channel: Channel, key: Path | None = None, unsigned_to: int | None = None
) -> Publisher:
    made = Publisher(
        channel.log, channel.wire, model=MODEL, signing_key=key, unsigned_to=unsigned_to
    )
    channel._open.append(made)
    return made


def _with_registry(
    channel: Channel, update: ModelUpdate, key: Path | None = None, *, model: str = MODEL
) -> None:
    """A manifest as a publisher writes it that has a registry, for readers who have none."""
    value = b"\0" + (7).to_bytes(4, "big") + channel.wire.encode(update)[10:]
    _append(channel, update, value, key, model)


def _append(
    channel: Channel, update: ModelUpdate, value: bytes, key: Path | None, model: str = MODEL
) -> None:
    headers = event_headers(update, update.model, "trainer")
    if key is not None:
        headers |= Signer(key).headers(value)
    producer = channel.log.producer()
    where = topics.MODEL_UPDATES.name
    producer.append(where, value, key=model.encode(), headers=headers).result(10)
    producer.close()


@pytest.mark.parametrize("signs", [False, True])
def test_a_trainer_that_lost_its_registry_does_not_begin_anew(
    memory_channel: Channel, keys: list[Path], signs: bool
) -> None:
    channel, key = memory_channel, keys[0] if signs else None
    first = channel.manifest(0, model(), kind="keyframe")
    _with_registry(channel, first, key)
    with pytest.raises(SettingsError, match=r"model-updates/0/0: a manifest of tiny .* registry"):
        _publisher(channel, key)
    _with_registry(channel, first, key, model="other")
    if not signs:
        with pytest.raises(SettingsError, match="model-updates/0/0"):
            _publisher(channel, keys[0])  # begins to sign at the same time
        assert _publisher(channel, keys[0], unsigned_to=-1).head() is None, "a person's word"


@pytest.mark.parametrize("signs", [False, True])
def test_nor_does_it_go_on_from_an_older_version(
    memory_channel: Channel, keys: list[Path], signs: bool
) -> None:
    channel, key = memory_channel, keys[0] if signs else None
    publisher = _publisher(channel, key)
    base = channel.keyframe(publisher, 0, model())
    _with_registry(channel, channel.manifest(1, model(1), base), key)
    with pytest.raises(SettingsError, match="model-updates/0/2"):
        _publisher(channel, key)
    update = channel.manifest(2, trained(model(), 2), base, kind="delta")
    _append(channel, update, channel.wire.encode(update), key)
    assert _publisher(channel, key).head() == update, "the newest can be read"


def test_what_strangers_wrote_does_not_stop_a_trainer_with_a_key(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    base = channel.keyframe(_publisher(channel, keys[0]), 0, model())
    for key in (None, keys[1]):
        _with_registry(channel, channel.manifest(1, model(1), base), key)
    assert _publisher(channel, keys[0]).head() == base


def test_noise_stops_nobody(memory_channel: Channel) -> None:
    memory_channel.append(topics.MODEL_UPDATES, b"noise")
    assert _publisher(memory_channel).head() is None
