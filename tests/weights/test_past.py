"""What a trainer takes for its own history when it starts, and when it does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace import topics
from tailrace.errors import SettingsError
from tailrace.events import ModelUpdate
from tailrace.stream import event_headers
from tailrace.weights.store import Store
from tailrace.weights.trust import Signer
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, trained
from tests.weights.signing import open_publisher, open_subscriber


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
        open_publisher(channel, key)
    _with_registry(channel, first, key, model="other")
    if not signs:
        with pytest.raises(SettingsError, match="model-updates/0/0"):
            open_publisher(channel, keys[0])  # begins to sign at the same time
        assert open_publisher(channel, keys[0], unsigned_to=-1).head() is None, "a person's word"


@pytest.mark.parametrize("signs", [False, True])
def test_nor_does_it_go_on_from_an_older_version(
    memory_channel: Channel, keys: list[Path], signs: bool
) -> None:
    channel, key = memory_channel, keys[0] if signs else None
    publisher = open_publisher(channel, key)
    base = channel.keyframe(publisher, 0, model())
    _with_registry(channel, channel.manifest(1, model(1), base), key)
    with pytest.raises(SettingsError, match="model-updates/0/2"):
        open_publisher(channel, key)
    update = channel.manifest(2, trained(model(), 2), base, kind="delta")
    _append(channel, update, channel.wire.encode(update), key)
    assert open_publisher(channel, key).head() == update, "the newest can be read"


def test_what_strangers_wrote_does_not_stop_a_trainer_with_a_key(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    base = channel.keyframe(open_publisher(channel, keys[0]), 0, model())
    for key in (None, keys[1]):
        _with_registry(channel, channel.manifest(1, model(1), base), key)
    assert open_publisher(channel, keys[0]).head() == base


def test_noise_stops_nobody(memory_channel: Channel) -> None:
    memory_channel.append(topics.MODEL_UPDATES, b"noise")
    assert open_publisher(memory_channel, None).head() is None


def test_signing_may_begin_late(channel: Channel, keys: list[Path]) -> None:
    base = channel.keyframe(open_publisher(channel, None), 0, model())
    with pytest.raises(SettingsError, match="unsigned_to: of the versions 0 to 0 of tiny none is"):
        open_publisher(channel, keys[0])
    publisher = open_publisher(channel, keys[0], unsigned_to=0)
    assert publisher.head() == base  # a person said so
    channel.keyframe(publisher, 1, model(), base)
    assert open_publisher(channel, keys[0]).version(0) == base  # and the signature from now on
    assert list(open_subscriber(channel, keys[0]).lineage.updates) == [1]
    store = Store(model(), 0, str(base.digest))
    assert [u.version for u in open_subscriber(channel, keys[0]).advance(store)] == [1]


def test_who_does_not_sign_trusts_nobody(memory_channel: Channel, keys: list[Path]) -> None:
    with pytest.raises(SettingsError, match=r"trusted_keys without a signing_key.*keys new"):
        open_publisher(memory_channel, None, keys[0])


def test_a_trainer_keeps_what_it_signed_with_a_key_that_it_is_not_told_to_trust(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    publisher = open_publisher(channel, keys[0], keys[1])
    base = channel.keyframe(publisher, 0, model())
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    again = open_publisher(channel, keys[0], keys[1])
    assert list(again.lineage.updates.values()) == [base, update]
    assert (again.head(), again.next_version) == (update, 2)


def test_what_is_put_before_the_first_signed_version_is_no_history(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    stranger = channel.wire.encode(channel.manifest(0, model(66), kind="keyframe"))
    channel.append(topics.MODEL_UPDATES, stranger)  # before anybody has published
    with pytest.raises(SettingsError, match="unsigned_to"):
        open_publisher(channel, keys[0])
    publisher = open_publisher(channel, keys[0], unsigned_to=-1)
    assert (publisher.head(), publisher.next_version) == (None, 1)
    base = channel.keyframe(publisher, 0, model())
    again = open_publisher(channel, keys[0])
    assert list(again.lineage.updates.values()) == [base]
    assert open_subscriber(channel, keys[0]).lineage.head == base


def test_what_was_said_before_signing_began_is_not_believed_after_it(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel, (old, new, third) = memory_channel, keys
    base = channel.keyframe(open_publisher(channel, None), 0, model())
    signing = open_publisher(channel, old, unsigned_to=0)
    first = channel.keyframe(signing, 1, model(), base)
    lost = f"after {{}} are signed, and key '{Signer(old).id}'.* to trusted_keys"
    for left in (0, -1):  # nobody took it out, and the old public key is missing
        with pytest.raises(SettingsError, match=lost.format(left)):
            open_publisher(channel, new, unsigned_to=left)
    assert open_publisher(channel, new, old, unsigned_to=0).head() == first
    # The old key was stolen: a person names a version that it signed.
    theft = channel.delta(open_publisher(channel, old), 2, trained(model(), 66), first)
    publisher = open_publisher(channel, new, unsigned_to=1)
    assert (publisher.head(), publisher.next_version) == (first, 3)
    after = channel.keyframe(publisher, 3, model(), first)
    assert open_publisher(channel, new).head() == after != theft
    with pytest.raises(SettingsError, match=Signer(new).id):
        open_publisher(channel, third, unsigned_to=1)


def test_a_persons_word_is_of_versions_that_are_there(
    memory_channel: Channel, keys: list[Path]
) -> None:
    """Else it would be of what is signed later, once the key is replaced."""
    channel = memory_channel
    for number in (0, 1):
        with pytest.raises(SettingsError, match=f"there is no version {number} of tiny"):
            open_publisher(channel, keys[0], unsigned_to=number)
        assert open_publisher(channel, keys[0], unsigned_to=-1).head() is None
        if number == 0:
            base = channel.keyframe(open_publisher(channel, None), 0, model())
    assert open_publisher(channel, keys[0], unsigned_to=0).head() == base


def test_a_stranger_does_not_drive_the_numbers_out_of_range(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    base = channel.keyframe(open_publisher(channel, keys[0]), 0, model())
    forged = channel.manifest((1 << 63) - 1, model(66), base, kind="keyframe")
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(forged))
    again = open_publisher(channel, keys[0])
    assert (again.head(), again.next_version) == (base, 1)


def test_only_what_the_first_signed_version_descends_from_counts_unsigned(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel, plain = memory_channel, open_publisher(memory_channel, None)
    base = channel.keyframe(plain, 0, model())
    left = channel.delta(plain, 1, trained(model(), 1), base)
    head = channel.delta(plain, 2, trained(model(), 2), base)
    forged = channel.manifest(3, model(66), head, kind="keyframe")
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(forged))
    with pytest.raises(SettingsError, match="0 to 3 of tiny"):
        open_publisher(channel, keys[0])
    for number, counts in ((2, [base, head]), (1, [base, left]), (3, [base, head, forged])):
        made = open_publisher(channel, keys[0], unsigned_to=number)
        assert list(made.lineage.updates.values()) == counts, "a person's word for it"
        assert made.next_version == 4, "no number is used twice"
    publisher = open_publisher(channel, keys[0], unsigned_to=2)
    with pytest.raises(ValueError, match="version 3 is not after"):
        channel.keyframe(publisher, 3, dict(channel.versions[2]), head)
    first = channel.keyframe(publisher, 4, dict(channel.versions[2]), head)
    elsewhere = channel.manifest(1, model(67), base, kind="keyframe")
    for late in (elsewhere, channel.manifest(5, model(68), first, kind="keyframe")):
        channel.append(topics.MODEL_UPDATES, channel.wire.encode(late))
    for number in (None, 3, 99, -1):  # the signature says it better than anybody
        made = open_publisher(channel, keys[0], unsigned_to=number)
        assert list(made.lineage.updates.values()) == [base, head, first]
        assert made.next_version == 6
    lone = open_publisher(channel, keys[1], keys[0])
    assert list(lone.lineage.updates.values()) == [base, head, first]
    with pytest.raises(SettingsError, match="trust the key that signed them"):
        open_publisher(channel, keys[1])
