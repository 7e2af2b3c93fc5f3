"""Signed manifests: who signs is followed, everybody else is as if he was not there."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
import subprocess

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PublicKey,
)
import msgspec
import pytest

from tailrace import topics
from tailrace.errors import SettingsError, UpdateRefused
from tailrace.events import Canary, Chunks, ModelUpdate, Range
from tailrace.log.base import LogRecord
from tailrace.stream import read_all
from tailrace.topics import named
from tailrace.updates import ModelUpdates
from tailrace.weights.lineage import MANIFESTS_SKIPPED
from tailrace.weights.publisher import Publisher
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.trust import KEY, SIGNATURE, Signer, Trust
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, same, trained


def _public(*files: Path) -> list[Path]:
    return [file.with_name(file.name + ".pub") for file in files]


def _publisher(
    channel: Channel, key: Path | None, *trusted: Path, unsigned_to: int | None = None
) -> Publisher:
    made = Publisher(
        channel.log,
        channel.wire,
        model=MODEL,
        prefix=channel.prefix,
        signing_key=key,
        trust=_public(*trusted),
        unsigned_to=unsigned_to,
    )
    channel._open.append(made)
    return made


def _follow(channel: Channel, *trusted: Path) -> Subscriber:
    subscriber = Subscriber(
        channel.log, channel.wire, model=MODEL, prefix=channel.prefix, trust=_public(*trusted)
    )
    channel._open.append(subscriber)
    subscriber.catch_up()
    return subscriber


def _records(channel: Channel) -> list[LogRecord]:
    return list(read_all(channel.log, named(topics.MODEL_UPDATES, channel.prefix)))


def _skipped(reason: str) -> float:
    return float(MANIFESTS_SKIPPED.labels(reason)._value.get())


def test_a_signed_history_is_followed(channel: Channel, keys: list[Path]) -> None:
    publisher = _publisher(channel, keys[0])
    base = channel.keyframe(publisher, 0, model())
    channel.delta(publisher, 1, trained(model(), 1), base)
    for trusted in (keys[:1], keys, []):  # without a key nobody looks
        store = Store.empty()
        _follow(channel, *trusted).advance(store)
        assert same(dict(store.tensors), dict(channel.versions[1]))
    assert _follow(channel, keys[1]).lineage.updates == {}
    record = _records(channel)[0]
    assert len(record.headers[SIGNATURE]) == 64
    assert record.headers[KEY] == Signer(keys[0]).id.encode()


def test_a_stranger_verifies_a_manifest_as_the_page_says(
    memory_channel: Channel, keys: list[Path]
) -> None:
    memory_channel.keyframe(_publisher(memory_channel, keys[0]), 0, model())
    (record,) = _records(memory_channel)
    public = serialization.load_pem_public_key(_public(keys[0])[0].read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    digest = sha256(public.public_bytes_raw()).hexdigest()
    assert record.headers[KEY] == digest[:16].encode()
    public.verify(record.headers[SIGNATURE], record.value or b"")
    with pytest.raises(InvalidSignature):
        public.verify(record.headers[SIGNATURE], (record.value or b"") + b"\0")


@pytest.mark.tools
def test_openssl_agrees(memory_channel: Channel, keys: list[Path], tmp_path: Path) -> None:
    memory_channel.keyframe(_publisher(memory_channel, keys[0]), 0, model())
    record = _records(memory_channel)[0]
    (tmp_path / "value").write_bytes(record.value or b"")
    (tmp_path / "signature").write_bytes(record.headers[SIGNATURE])
    public = _public(keys[0])[0]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", str(public)]
    command += ["-in", str(tmp_path / "value"), "-sigfile", str(tmp_path / "signature")]
    subprocess.run(command, check=True, capture_output=True)


def test_what_is_not_signed_is_as_if_it_was_not_there(channel: Channel, keys: list[Path]) -> None:
    publisher = _publisher(channel, keys[0])
    base = channel.keyframe(publisher, 0, model())
    before = {reason: _skipped(reason) for reason in ("unsigned", "unknown_key", "signature")}
    # Strangers who can write on the topic: a version of their own, under the next number.
    forged = channel.manifest(1, model(66), base, kind="delta", chunks=Chunks(offsets=[0]))
    value = channel.wire.encode(forged)
    for headers in (
        {},
        Signer(keys[1]).headers(value),
        Signer(keys[1]).headers(value) | {KEY: Signer(keys[0]).id.encode()},
        Signer(keys[0]).headers(b"another"),
        {SIGNATURE: Signer(keys[0]).headers(value)[SIGNATURE]},
        {SIGNATURE: b"", KEY: Signer(keys[0]).id.encode()},
        {SIGNATURE: b"short", KEY: Signer(keys[0]).id.encode()},
        {SIGNATURE: bytes(64), KEY: b"\xff" * 16},
    ):
        producer = channel.log.producer()
        where = named(topics.MODEL_UPDATES, channel.prefix)
        producer.append(where, value, key=MODEL.encode(), headers=headers).result(10)
        producer.close()
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    subscriber, store = _follow(channel, keys[0]), Store.empty()
    assert list(subscriber.lineage.updates.values()) == [base, update]
    assert [u.version for u in subscriber.advance(store)] == [0, 1]
    assert {reason: _skipped(reason) - count for reason, count in before.items()} == {
        "unsigned": 2,
        "unknown_key": 3,
        "signature": 3,
    }
    # The next trainer goes on from what was signed, too.
    again = _publisher(channel, keys[0])
    assert (again.head(), again.version(1)) == (update, update)
    assert channel.follow().lineage.updates[1] == forged  # who has no key is deceived


def test_every_field_is_signed(memory_channel: Channel, keys: list[Path]) -> None:
    channel, publisher = memory_channel, _publisher(memory_channel, keys[0])
    base = channel.keyframe(publisher, 0, model())
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    record = _records(channel)[-1]
    trust = Trust(_public(keys[0]))
    assert record.value is not None
    trust.check(record.value, record.headers)
    others = dict.fromkeys(ModelUpdate.__struct_fields__, None) | {
        **dict.fromkeys(("model", "base_digest", "kind", "codec", "uri"), "another"),
        **dict.fromkeys(("sha256", "digest", "config_digest"), "another"),
        **dict.fromkeys(("version", "created_ms", "base_version", "bytes", "keyframe_version"), 7),
        **dict.fromkeys(("first_step", "last_step", "first_feedback_ms", "last_feedback_ms"), 7),
        "chunks": Chunks(offsets=[99]),
        "ranges": [Range(partition=1, start=0, end=1)],
        "figures": {"loss": 1.0},
        "canary": Canary(prompt_tokens=b"1234"),
    }
    for name, other in others.items():
        tampered = channel.wire.encode(msgspec.structs.replace(update, **{name: other}))
        assert tampered != record.value, name
        with pytest.raises(UpdateRefused, match="signature"):
            trust.check(tampered, record.headers)
    for at in range(len(record.value)):
        flipped = record.value[:at] + bytes([record.value[at] ^ 1]) + record.value[at + 1 :]
        with pytest.raises(UpdateRefused, match="signature"):
            trust.check(flipped, record.headers)


def test_a_key_is_replaced_without_a_pause(channel: Channel, keys: list[Path]) -> None:
    old, new, _ = keys
    publisher = _publisher(channel, old)
    base = channel.keyframe(publisher, 0, model())
    store, rotating = Store.empty(), _follow(channel, old, new)  # 1: readers know both
    rotating.advance(store)
    publisher = _publisher(channel, new, old)  # 2: the trainer signs with the new one
    assert publisher.head() == base
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    rotating.catch_up()
    assert [u.version for u in rotating.advance(store)] == [1]
    lone = _follow(channel, new)
    assert list(lone.lineage.updates) == [1]
    with pytest.raises(UpdateRefused, match="gap"):
        lone.advance(Store.empty())  # too early: nothing whole was signed with it
    lone.advance(Store(model(), None, str(base.digest)))  # but from the same weights it can
    channel.keyframe(publisher, 2, channel.versions[1], update)  # 3: tailrace's keyframe order
    channel.delta(publisher, 3, trained(model(), 3), publisher.head())  # type: ignore[arg-type]
    store = Store.empty()
    assert [u.version for u in _follow(channel, new).advance(store)] == [2, 3]  # 4: old one gone
    assert _follow(channel, old).lineage.head == base  # who was forgotten stays behind


def test_signing_may_begin_late(channel: Channel, keys: list[Path]) -> None:
    base = channel.keyframe(_publisher(channel, None), 0, model())
    with pytest.raises(SettingsError, match="unsigned_to: of the versions 0 to 0 of tiny none is"):
        _publisher(channel, keys[0])
    publisher = _publisher(channel, keys[0], unsigned_to=0)
    assert publisher.head() == base  # a person said so
    channel.keyframe(publisher, 1, model(), base)
    assert _publisher(channel, keys[0]).version(0) == base  # and the signature from now on
    assert list(_follow(channel, keys[0]).lineage.updates) == [1]
    store = Store(model(), 0, str(base.digest))
    assert [u.version for u in _follow(channel, keys[0]).advance(store)] == [1]


def test_who_does_not_sign_trusts_nobody(memory_channel: Channel, keys: list[Path]) -> None:
    with pytest.raises(SettingsError, match=r"trusted_keys without a signing_key.*keys new"):
        _publisher(memory_channel, None, keys[0])


def test_a_trainer_keeps_what_it_signed_with_a_key_that_it_is_not_told_to_trust(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    publisher = _publisher(channel, keys[0], keys[1])
    base = channel.keyframe(publisher, 0, model())
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    again = _publisher(channel, keys[0], keys[1])
    assert list(again.lineage.updates.values()) == [base, update]
    assert (again.head(), again.next_version) == (update, 2)


def test_what_is_put_before_the_first_signed_version_is_no_history(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    stranger = channel.wire.encode(channel.manifest(0, model(66), kind="keyframe"))
    channel.append(topics.MODEL_UPDATES, stranger)  # before anybody has published
    with pytest.raises(SettingsError, match="unsigned_to"):
        _publisher(channel, keys[0])
    publisher = _publisher(channel, keys[0], unsigned_to=-1)
    assert (publisher.head(), publisher.next_version) == (None, 1)
    base = channel.keyframe(publisher, 0, model())
    again = _publisher(channel, keys[0])
    assert list(again.lineage.updates.values()) == [base]
    assert _follow(channel, keys[0]).lineage.head == base


def test_what_was_said_before_signing_began_is_not_believed_after_it(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel, (old, new, third) = memory_channel, keys
    base = channel.keyframe(_publisher(channel, None), 0, model())
    signing = _publisher(channel, old, unsigned_to=0)
    first = channel.keyframe(signing, 1, model(), base)
    lost = f"after {{}} are signed, and key '{Signer(old).id}'.* to trusted_keys"
    for left in (0, -1):  # nobody took it out, and the old public key is missing
        with pytest.raises(SettingsError, match=lost.format(left)):
            _publisher(channel, new, unsigned_to=left)
    assert _publisher(channel, new, old, unsigned_to=0).head() == first
    # The old key was stolen: a person names a version that it signed.
    theft = channel.delta(_publisher(channel, old), 2, trained(model(), 66), first)
    publisher = _publisher(channel, new, unsigned_to=1)
    assert (publisher.head(), publisher.next_version) == (first, 3)
    after = channel.keyframe(publisher, 3, model(), first)
    assert _publisher(channel, new).head() == after != theft
    with pytest.raises(SettingsError, match=Signer(new).id):
        _publisher(channel, third, unsigned_to=1)


def test_a_stranger_does_not_drive_the_numbers_out_of_range(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel = memory_channel
    base = channel.keyframe(_publisher(channel, keys[0]), 0, model())
    forged = channel.manifest((1 << 63) - 1, model(66), base, kind="keyframe")
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(forged))
    again = _publisher(channel, keys[0])
    assert (again.head(), again.next_version) == (base, 1)


def test_only_what_the_first_signed_version_descends_from_counts_unsigned(
    memory_channel: Channel, keys: list[Path]
) -> None:
    channel, plain = memory_channel, _publisher(memory_channel, None)
    base = channel.keyframe(plain, 0, model())
    left = channel.delta(plain, 1, trained(model(), 1), base)
    head = channel.delta(plain, 2, trained(model(), 2), base)
    forged = channel.manifest(3, model(66), head, kind="keyframe")
    channel.append(topics.MODEL_UPDATES, channel.wire.encode(forged))
    with pytest.raises(SettingsError, match="0 to 3 of tiny"):
        _publisher(channel, keys[0])
    for number, counts in ((2, [base, head]), (1, [base, left]), (3, [base, head, forged])):
        made = _publisher(channel, keys[0], unsigned_to=number)
        assert list(made.lineage.updates.values()) == counts, "a person's word for it"
        assert made.next_version == 4, "no number is used twice"
    publisher = _publisher(channel, keys[0], unsigned_to=2)
    with pytest.raises(ValueError, match="version 3 is not after"):
        channel.keyframe(publisher, 3, dict(channel.versions[2]), head)
    first = channel.keyframe(publisher, 4, dict(channel.versions[2]), head)
    elsewhere = channel.manifest(1, model(67), base, kind="keyframe")
    for late in (elsewhere, channel.manifest(5, model(68), first, kind="keyframe")):
        channel.append(topics.MODEL_UPDATES, channel.wire.encode(late))
    for number in (None, 3, 99, -1):  # the signature says it better than anybody
        made = _publisher(channel, keys[0], unsigned_to=number)
        assert list(made.lineage.updates.values()) == [base, head, first]
        assert made.next_version == 6
    lone = _publisher(channel, keys[1], keys[0])
    assert list(lone.lineage.updates.values()) == [base, head, first]
    with pytest.raises(SettingsError, match="trust the key that signed them"):
        _publisher(channel, keys[1])


def test_model_updates_takes_trusted_ones_only(channel: Channel, keys: list[Path]) -> None:
    publisher = _publisher(channel, keys[0])
    channel.keyframe(publisher, 0, model())
    trust = _public(keys[0])
    with ModelUpdates(channel.log, MODEL, prefix=channel.prefix, trust=trust) as updates:
        assert next(updates).version == 0
        unsigned = channel.publisher()
        channel.keyframe(unsigned, 1, model(1), unsigned.head())
        assert updates.poll(0.3) is None
        with pytest.raises(UpdateRefused, match="gap"):
            updates.at(1)
