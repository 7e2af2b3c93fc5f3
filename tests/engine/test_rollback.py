"""What an engine serves under a release that steps back, and on the branch after it."""

from __future__ import annotations

import pytest

from tailrace import topics
from tailrace.events import ModelUpdate, Release
from tailrace.stream import Writer
from tailrace.weights import codec
from tailrace.weights.tensors import digest
from tests.engine.models import MODEL, tensors
from tests.engine.room import Room


@pytest.fixture
def room(room: Room) -> Room:
    """It serves version 3."""
    room.trainer.keyframe(0)
    for version in (1, 2, 3):
        room.trainer.delta(version)
    room.turns()
    return room


def release(room: Room, **fields: object) -> None:
    record = Release(model=MODEL, event_time_ms=1, **fields)  # type: ignore[arg-type]
    Writer(room.producer, room.trainer.wire).write(topics.RELEASES, record).result(10)


def branch(room: Room, version: int, base: int, number: int) -> None:
    """A version that holds ``tensors(number)``, from any base."""
    before = room.trainer.publisher.version(base)
    assert before is not None
    held = tensors(room.trainer.contents[base])
    manifest = ModelUpdate(
        model=MODEL,
        version=version,
        created_ms=1,
        base_version=base,
        base_digest=before.digest,
        digest=digest(tensors(number)),
    )
    same = manifest.digest == before.digest
    stream = None if same else codec.encode_delta(held, tensors(number))
    room.trainer.publisher.publish(manifest, stream, [], [])
    room.trainer.contents[version] = number


def test_it_steps_back_and_follows_the_branch(room: Room) -> None:
    assert room.serves(3, 3)
    release(room, live=1, withdrawn_to=3)
    room.turns()
    assert room.serves(1, 1)
    branch(room, 4, 3, 7)  # its trainer had not heard yet
    room.turns()
    assert room.serves(1, 1), "it descends from what was withdrawn"
    pauses = room.vllm.calls.count("pause")
    branch(room, 5, 1, 1)
    room.turns()
    assert room.serves(1, 5) and room.vllm.calls.count("pause") == pauses, "a label alone"
    branch(room, 6, 5, 8)
    room.turns()
    assert room.serves(8, 6)
    assert [version for state, version, _ in room.acks() if state == "applied"] == [3, 1, 5, 6]


def test_a_pin_to_a_withdrawn_version_and_back(room: Room) -> None:
    release(room, live=1, withdrawn_to=3)
    release(room, mode="pin", live=2)
    room.turns()
    assert room.serves(2, 2)
    release(room, live=1, withdrawn_to=3)
    room.turns()
    assert room.serves(1, 1)


def test_where_the_version_cannot_be_served_the_next_before_it_is(room: Room) -> None:
    room.engine.copy.refused.add(2, "by this test")
    release(room, live=2, withdrawn_to=3)
    room.turns()
    assert room.serves(1, 1), "never what was withdrawn"
