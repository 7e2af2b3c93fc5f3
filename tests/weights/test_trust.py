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
from tailrace.errors import UpdateRefused
from tailrace.events import Canary, Chunks, ModelUpdate, Range
from tailrace.log.base import LogRecord
from tailrace.stream import read_all
from tailrace.topics import named
from tailrace.updates import ModelUpdates
from tailrace.weights.lineage import MANIFESTS_SKIPPED
from tailrace.weights.store import Store
from tailrace.weights.trust import KEY, SIGNATURE, Signer, Trust
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import model, same, trained
from tests.weights.signing import open_publisher, open_subscriber, public


def _records(channel: Channel) -> list[LogRecord]:
    return list(read_all(channel.log, named(topics.MODEL_UPDATES, channel.prefix)))


def _skipped(reason: str) -> float:
    return float(MANIFESTS_SKIPPED.labels(reason)._value.get())


def test_a_signed_history_is_followed(channel: Channel, keys: list[Path]) -> None:
    publisher = open_publisher(channel, keys[0])
    base = channel.keyframe(publisher, 0, model())
    channel.delta(publisher, 1, trained(model(), 1), base)
    for trusted in (keys[:1], keys, []):  # without a key nobody looks
        store = Store.empty()
        open_subscriber(channel, *trusted).advance(store)
        assert same(dict(store.tensors), dict(channel.versions[1]))
    assert open_subscriber(channel, keys[1]).lineage.updates == {}
    record = _records(channel)[0]
    assert len(record.headers[SIGNATURE]) == 64
    assert record.headers[KEY] == Signer(keys[0]).id.encode()


def test_a_stranger_verifies_a_manifest_as_the_page_says(
    memory_channel: Channel, keys: list[Path]
) -> None:
    memory_channel.keyframe(open_publisher(memory_channel, keys[0]), 0, model())
    (record,) = _records(memory_channel)
    key = serialization.load_pem_public_key(public(keys[0])[0].read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    digest = sha256(key.public_bytes_raw()).hexdigest()
    assert record.headers[KEY] == digest[:16].encode()
    key.verify(record.headers[SIGNATURE], record.value or b"")
    with pytest.raises(InvalidSignature):
        key.verify(record.headers[SIGNATURE], (record.value or b"") + b"\0")


@pytest.mark.tools
def test_openssl_agrees(memory_channel: Channel, keys: list[Path], tmp_path: Path) -> None:
    memory_channel.keyframe(open_publisher(memory_channel, keys[0]), 0, model())
    record = _records(memory_channel)[0]
    (tmp_path / "value").write_bytes(record.value or b"")
    (tmp_path / "signature").write_bytes(record.headers[SIGNATURE])
    file = public(keys[0])[0]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", str(file)]
    command += ["-in", str(tmp_path / "value"), "-sigfile", str(tmp_path / "signature")]
    subprocess.run(command, check=True, capture_output=True)


def test_what_is_not_signed_is_as_if_it_was_not_there(channel: Channel, keys: list[Path]) -> None:
    publisher = open_publisher(channel, keys[0])
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
    subscriber, store = open_subscriber(channel, keys[0]), Store.empty()
    assert list(subscriber.lineage.updates.values()) == [base, update]
    assert [u.version for u in subscriber.advance(store)] == [0, 1]
    assert {reason: _skipped(reason) - count for reason, count in before.items()} == {
        "unsigned": 2,
        "unknown_key": 3,
        "signature": 3,
    }
    # The next trainer goes on from what was signed, too.
    again = open_publisher(channel, keys[0])
    assert (again.head(), again.version(1)) == (update, update)
    assert channel.follow().lineage.updates[1] == forged  # who has no key is deceived


def test_every_field_is_signed(memory_channel: Channel, keys: list[Path]) -> None:
    channel, publisher = memory_channel, open_publisher(memory_channel, keys[0])
    base = channel.keyframe(publisher, 0, model())
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    record = _records(channel)[-1]
    trust = Trust(public(keys[0]))
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
    publisher = open_publisher(channel, old)
    base = channel.keyframe(publisher, 0, model())
    store, rotating = Store.empty(), open_subscriber(channel, old, new)  # 1: readers know both
    rotating.advance(store)
    publisher = open_publisher(channel, new, old)  # 2: the trainer signs with the new one
    assert publisher.head() == base
    update = channel.delta(publisher, 1, trained(model(), 1), base)
    rotating.catch_up()
    assert [u.version for u in rotating.advance(store)] == [1]
    lone = open_subscriber(channel, new)
    assert list(lone.lineage.updates) == [1]
    with pytest.raises(UpdateRefused, match="gap"):
        lone.advance(Store.empty())  # too early: nothing whole was signed with it
    lone.advance(Store(model(), None, str(base.digest)))  # but from the same weights it can
    channel.keyframe(publisher, 2, channel.versions[1], update)  # 3: tailrace's keyframe order
    channel.delta(publisher, 3, trained(model(), 3), publisher.head())  # type: ignore[arg-type]
    store = Store.empty()
    assert [u.version for u in open_subscriber(channel, new).advance(store)] == [
        2,
        3,
    ]  # 4: old one gone
    assert open_subscriber(channel, old).lineage.head == base  # who was forgotten stays behind


def test_model_updates_takes_trusted_ones_only(channel: Channel, keys: list[Path]) -> None:
    publisher = open_publisher(channel, keys[0])
    channel.keyframe(publisher, 0, model())
    trust = public(keys[0])
    with ModelUpdates(channel.log, MODEL, prefix=channel.prefix, trust=trust) as updates:
        assert next(updates).version == 0
        unsigned = channel.publisher()
        channel.keyframe(unsigned, 1, model(1), unsigned.head())
        assert updates.poll(0.3) is None
        with pytest.raises(UpdateRefused, match="gap"):
            updates.at(1)
