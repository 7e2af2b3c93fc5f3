"""Two engines of one model on a log in memory: whose vLLM stands still, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tailrace.weights.tensors import digest
from tests.engine.models import canary, tensors
from tests.engine.room import Room


@pytest.fixture
def second(room: Room, rooms: Callable[..., Room]) -> Room:
    return rooms(name="engine-1", beside=room)


def test_two_engines_take_turns(room: Room, second: Room) -> None:
    room.trainer.keyframe(0)
    second.turns()
    room.turns()
    assert room.serves(0, 0) and second.serves(0, 0), "nobody waits at the start"
    room.trainer.delta(1)
    second.turns(3)
    assert second.serves(0, 0), "it waits for the one before it"
    room.turns()
    second.turns()
    assert room.serves(1, 1) and second.serves(1, 1)
    # A way back goes the same way.
    room.trainer.release("pin", 0)
    second.turns(3)
    assert second.serves(1, 1)
    room.turns()
    second.turns()
    assert room.serves(0, 0) and second.serves(0, 0)
    # The first is gone: one slot, then nobody waits for it.
    room.trainer.release("follow", 1)
    second.turns(2, seconds=0.9)
    assert second.serves(0, 0)
    second.turns(2, seconds=0.9)
    assert second.serves(1, 1)
    room.trainer.release("pin", 0)
    second.turns()
    assert second.serves(0, 0)
    # A number alone, and a swap back to what is right, wait for nobody.
    room.turns()
    room.trainer.release("follow", None)
    room.turns()
    second.turns()
    room.trainer.nothing(2)
    second.turns()
    assert second.serves(1, 2)


def test_an_engine_that_waits_swaps_in_the_newest_of_what_came_meanwhile(
    room: Room, second: Room
) -> None:
    room.trainer.keyframe(0)
    room.turns()
    second.turns()
    for version in (1, 2, 3):
        room.trainer.delta(version)
        second.turns()
    assert second.serves(0, 0)
    room.turns()
    second.turns()
    assert second.serves(3, 3) and second.vllm.calls.count("pause") == 2


def test_a_wrong_version_is_swapped_back_at_once(room: Room, second: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    second.turns()
    second.vllm.logprobs[digest(tensors(1))] = [-9.0, -9.0]
    room.trainer.delta(1, canary=canary([-1.0]))
    room.turns()
    second.turns()
    assert room.serves(1, 1) and second.serves(0, 0)
