"""Any log, however ill: only verified versions are given, and a healthy log is caught up with.

Histories are drawn with faults: manifests that lie, are repeated, come late, come from strangers or
are missing; chunks that are cut, foreign, or come back wrong for a while. The follower is the
public :class:`tailrace.ModelUpdates`, on a clock that the test moves.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from tailrace import topics
from tailrace.events import Chunks, ModelUpdate
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryConsumer, MemoryLog
from tailrace.updates import ModelUpdates
from tailrace.weights import codec
from tailrace.weights.lineage import MANIFESTS_SKIPPED
from tailrace.weights.subscriber import UPDATES_REFUSED
from tailrace.weights.tensors import Tensors, digest
from tests.weights.conftest import MODEL, Channel
from tests.weights.models import FILES, model, same, trained

FAULTS = (
    None,
    "wrong digest",
    "wrong sha256",
    "wrong base",
    "chunk missing",
    "chunk foreign",
    "chunk cut",
    "chunks turned round",
    "chunks deleted",
    "no chunks",
    "unknown codec",
    "unknown kind",
    "no bytes at its uri",
    "repeated",
    "repeated with other words",
    "after its successor",
    "never there",
    "of another model",
    "noise before it",
    "sick reads",
)


class SickLog(MemoryLog):
    """Chunks come back wrong while ``sick`` is not zero; each read makes it less."""

    sick = 0

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> MemoryConsumer:
        return _SickConsumer(self, group, committed_only)


class _SickConsumer(MemoryConsumer):
    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        records = super().poll(timeout_s, max_records)
        log = self._log
        assert isinstance(log, SickLog)
        if not log.sick or not records or records[0].topic != topics.MODEL_CHUNKS.name:
            return records
        log.sick -= 1
        value = records[0].value or b""
        wrong = value[:-1] + bytes([value[-1] ^ 1]) if log.sick % 2 else value[: len(value) // 2]
        return [msgspec.structs.replace(records[0], value=wrong), *records[1:]]


class Author:
    """Writes a history, fault by fault, without the publisher that would refuse to."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.truth: dict[int, Tensors] = {}
        self.manifests: dict[int, ModelUpdate] = {}
        self.late: ModelUpdate | None = None
        self.producer = channel.log.producer()

    def version(self, kind: str, base_version: int | None, fault: str | None) -> ModelUpdate:
        version = len(self.truth)
        base = None if base_version is None else self.manifests[base_version]
        before = {} if base_version is None else self.truth[base_version]
        after = before if kind == "label" else trained(before or model(), version)
        stream: bytes | None = codec.encode_delta(before, after)
        if kind == "keyframe":
            stream = codec.encode_keyframe(after, FILES)
        elif kind == "label":
            stream = None
        if stream and fault == "unknown codec":
            stream = b"another-codec\n" + stream
        update = msgspec.structs.replace(
            self.channel.manifest(version, after, base),
            kind="delta" if kind == "label" else kind,
            keyframe_version=version if kind == "keyframe" else (base and base.keyframe_version),
        )
        if stream is not None:
            update = self.laid(update, stream, fault)
        self.truth[version], self.manifests[version] = after, update
        self.put(self.lying(update, fault), fault)
        return update

    def laid(self, update: ModelUpdate, stream: bytes, fault: str | None) -> ModelUpdate:
        parts = [stream[at : at + 700] for at in range(0, len(stream), 700)]
        spoiled = len(parts) // 2
        offsets = []
        for index, part in enumerate(parts):
            key = MODEL
            if index == spoiled and fault == "chunk missing":
                continue
            if index == spoiled and fault == "chunk cut":
                part = part[:-1]
            if index == spoiled and fault == "chunk foreign":
                key = "other"
            offsets.append(self.channel.append(topics.MODEL_CHUNKS, part, key))
            self.channel.append(topics.MODEL_CHUNKS, b"garbage of somebody else", "other")
        if fault == "chunks turned round":
            offsets.reverse()
        if fault == "chunks deleted":
            self.channel.log.delete_before(topics.MODEL_CHUNKS.name, {0: offsets[-1] + 1})
        return msgspec.structs.replace(
            update,
            codec="another" if fault == "unknown codec" else "classes-1",
            bytes=len(stream),
            sha256=sha256(stream).hexdigest(),
            chunks=Chunks(offsets=offsets),
        )

    def lying(self, update: ModelUpdate, fault: str | None) -> ModelUpdate:
        lies: dict[str | None, dict[str, Any]] = {
            "wrong digest": {"digest": digest(model(77))},
            "wrong sha256": {"sha256": "0" * 64},
            "wrong base": {"base_digest": "0" * 64},
            "no chunks": {"chunks": None},
            "unknown kind": {"kind": "patch"},
            "no bytes at its uri": {"chunks": None, "uri": "memory://nothing/here"},
        }
        return msgspec.structs.replace(update, **lies.get(fault, {}))

    def put(self, update: ModelUpdate, fault: str | None) -> None:
        if fault == "after its successor" and self.late is None:
            self.late = update
            return
        if fault == "never there":
            return
        if fault == "noise before it":
            self.channel.append(topics.MODEL_UPDATES, b"noise")
        if fault == "of another model":
            foreign = msgspec.structs.replace(update, model="other", digest="0" * 64)
            self.channel.append(topics.MODEL_UPDATES, self.channel.wire.encode(foreign))
        if fault == "sick reads":
            assert isinstance(self.channel.log, SickLog)
            self.channel.log.sick = 3
        self.channel.append(topics.MODEL_UPDATES, self.channel.wire.encode(update))
        again = {"repeated": update, "repeated with other words": self.other(update)}.get(
            fault or ""
        )
        for each in (again, self.late):
            if each is not None:
                self.channel.append(topics.MODEL_UPDATES, self.channel.wire.encode(each))
        self.late = None

    def other(self, update: ModelUpdate) -> ModelUpdate:
        return msgspec.structs.replace(update, digest=digest(model(55)), base_digest="1" * 64)


HISTORY = st.lists(
    st.tuples(
        st.sampled_from(["delta", "delta", "delta", "keyframe", "label"]),
        st.integers(1, 3),
        st.sampled_from(FAULTS),
        st.integers(0, 2),
    ),
    max_size=8,
)


class Follower:
    """Polls as often as it is told; what it was given has the right bits."""

    def __init__(self, author: Author, **options: Any) -> None:
        self.author, self.now_s = author, 0.0
        self.given: list[int] = []
        log = author.channel.log
        self.updates = ModelUpdates(log, MODEL, clock=lambda: self.now_s, **options)

    def poll(self, times: int) -> None:
        for _ in range(times):
            update = self.updates.poll(0)
            self.now_s += 1000.0
            if update is not None:
                held = dict(update.tensors)
                assert digest(held) == update.manifest.digest
                assert same(held, self.author.truth[update.version])
                self.given.append(update.version)


@settings(max_examples=60, deadline=None)
@given(HISTORY, st.booleans(), st.sampled_from([0, 1 << 20]))
@example([("delta", 1, fault, 1) for fault in FAULTS], False, 1 << 20)
@example([("keyframe", 1, fault, 1) for fault in FAULTS], True, 0)
def test_only_what_is_right_is_given_and_the_head_is_reached(
    history: list[tuple[str, int, str | None, int]], since: bool, journal_bytes: int
) -> None:
    log = SickLog()
    channel = Channel(log, "")
    author = Author(channel)
    follower = Follower(author, since=-1 if since else None, journal_bytes=journal_bytes)
    author.version("keyframe", None, None)
    for kind, back, fault, polls in history:
        author.version(kind, max(0, len(author.truth) - back), fault)
        follower.poll(polls)
    if author.late is not None:
        author.put(author.late, None)
    log.sick = 0  # healthy from here on
    for kind in ("keyframe", "delta"):
        head = author.version(kind, len(author.truth) - 1, None)
        follower.poll(len(author.truth) + 1)
        assert follower.given[-1] == head.version
    assert len(follower.given) == len({*follower.given}), "a version was given twice"
    follower.updates.close()
    channel.close()


COUNTED = {
    "wrong digest": "digest",
    "wrong sha256": "corrupt",
    "wrong base": "base",
    "chunk missing": "truncated",
    "chunk foreign": "corrupt",
    "chunk cut": "truncated",
    "chunks turned round": "corrupt",
    "chunks deleted": "gap",
    "no chunks": "truncated",
    "unknown codec": "codec",
    "unknown kind": "kind",
    "no bytes at its uri": "uri",
    "repeated": "duplicate",
    "repeated with other words": "duplicate",
    "never there": "gap",
    "of another model": "foreign",
    "noise before it": "not_avro",
    "sick reads": "truncated",
}


@pytest.mark.parametrize(("fault", "reason"), COUNTED.items())
def test_a_fault_is_counted_and_passed(fault: str, reason: str) -> None:
    def counted() -> float:
        return sum(
            counter.labels(reason)._value.get() for counter in (MANIFESTS_SKIPPED, UPDATES_REFUSED)
        )

    author, before = Author(Channel(SickLog(), "")), counted()
    follower = Follower(author)
    author.version("keyframe", None, None)
    follower.poll(1)
    author.version("delta", 0, fault)
    follower.poll(1)
    if fault == "never there":
        author.version("delta", 1, None)
        follower.poll(1)
    assert counted() > before
    follower.poll(4)
    if fault != "sick reads":  # that one comes right by itself
        author.version("delta", 0, None)  # and here the trainer's next version does
        follower.poll(1)
    assert follower.given[-1] == max(author.truth)
    follower.updates.close()
    author.channel.close()
