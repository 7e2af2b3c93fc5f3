"""Adapters: loaded beside what is served, the newest and the one before, verified, acked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace import versions
from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.settings import Common
from tailrace.weights import adapters, codec
from tailrace.weights.lineage import Lineage
from tailrace.weights.tensors import digest
from tests.engine.fakes import FakeVllm
from tests.engine.models import MODEL, canary, tensors
from tests.engine.room import Room


@pytest.fixture
def room(room: Room) -> Room:
    """It serves version 0."""
    room.trainer.keyframe(0)
    room.turns()
    return room


def names(room: Room) -> list[str]:
    return sorted(room.vllm.adapters)


def test_the_newest_and_the_one_before_are_loaded(room: Room) -> None:
    for version in (1, 2, 3):
        room.trainer.adapter(version)
        room.turns()
        assert room.serves(0, 0), "the label of what is served stays"
    assert names(room) == ["tiny@2", "tiny@3"]
    assert room.vllm.calls.count("pause") == 1, "nobody stood still"
    said = [(ack.state, ack.version) for ack in room.trainer.acks()]
    assert said[1:5] == [("loaded", 1), ("serving", 0), ("loaded", 2), ("serving", 0)]
    path = Path(room.vllm.adapters["tiny@3"])
    assert sorted(p.name for p in path.iterdir()) == [adapters.CONFIG_FILE, adapters.WEIGHTS_FILE]
    assert sorted(p.name for p in path.parent.iterdir()) == ["1", "2", "3"]
    # The next version of the model has a number of its own, and takes the adapters away.
    assert room.trainer.publisher.next_version == 4
    room.trainer.delta(4)
    room.turns()
    assert room.serves(4, 4) and names(room) == []
    assert room.vllm.resumed_with[-1] == [], "gone before anybody met them under other weights"
    room.trainer.adapter(5)
    room.turns()
    assert names(room) == ["tiny@5"]
    # Back on version 0 its own are there again.
    room.trainer.release("pin", 0)
    room.turns()
    assert room.serves(0, 0) and names(room) == ["tiny@2", "tiny@3"]


def test_what_an_answer_under_way_may_read_again_stays_for_an_hour(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    folder = Path(room.vllm.adapters["tiny@1"])
    room.trainer.delta(2)
    room.turns()
    assert room.serves(2, 2) and names(room) == []
    room.turns(3, seconds=1000.0)
    assert (folder / adapters.WEIGHTS_FILE).exists()
    room.turns(seconds=1000.0)
    assert not folder.exists()


def test_no_canary_while_an_answer_with_an_adapter_may_run(room: Room) -> None:
    room.trainer.delta(1, canary=canary([-1.0]))
    room.turns()
    scored = room.vllm.calls.count("score")
    assert scored, "it is asked where there is no adapter"
    room.trainer.adapter(2)
    room.turns()
    room.trainer.delta(3, canary=canary([-1.0]))
    room.turns()
    assert room.serves(3, 3) and room.vllm.calls.count("score") == scored
    assert "left out" in str(room.acks()[-1][2])
    room.turns(2, seconds=3600.0)
    room.trainer.delta(4, canary=canary([-1.0]))
    room.turns()
    assert room.serves(4, 4) and room.vllm.calls.count("score") == scored + 1


def test_with_a_vllm_that_ended_its_adapters_have(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    folder = Path(room.vllm.adapters["tiny@1"])
    room.trainer.delta(2, canary=canary([-1.0]))
    room.turns()
    assert folder.exists() and "left out" in str(room.acks()[-1][2])
    room.vllm.dead, room.child.code = True, -9
    room.turns(3, seconds=2.0)
    assert room.serves(2, 2) and room.child.starts == 2
    assert not folder.exists() and room.vllm.calls.count("score") == 1


def test_a_folder_that_is_loaded_again_is_not_counted_from_before(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    folder = Path(room.vllm.adapters["tiny@1"])
    room.trainer.delta(2)
    room.turns()
    room.trainer.release("pin", 0)
    room.turns(seconds=3000.0)
    assert names(room) == ["tiny@1"]
    room.trainer.release("pin", 2)
    room.turns(seconds=3000.0)
    room.turns(seconds=3000.0)
    assert room.serves(2, 2) and names(room) == [] and folder.exists()


def test_a_zero_step_version_keeps_them(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    room.trainer.nothing(2)
    room.turns()
    assert room.serves(0, 2) and names(room) == ["tiny@1"]


def test_a_fresh_vllm_gets_them_again(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    room.vllm.dead, room.child.code = True, -9
    room.turns(3, seconds=2.0)
    assert room.serves(0, 0) and names(room) == ["tiny@1"]


def test_an_engine_that_comes_back_asks_what_is_loaded(
    room: Room, rooms: Callable[..., Room]
) -> None:
    for version in (1, 2):
        room.trainer.adapter(version)
    room.turns()
    room.trainer.adapter(3)
    again = rooms(beside=room)
    again.vllm = room.vllm
    again.turns()
    assert names(again) == ["tiny@2", "tiny@3"]
    assert room.vllm.calls.count("load_adapter") == 3


def test_what_cannot_be_loaded_is_refused_with_its_reason(room: Room) -> None:
    room.trainer.adapter(1)
    room.trainer.adapter(2, rank=64)
    room.trainer.adapter(3, digest="0" * 64)
    room.turns(3)
    assert names(room) == ["tiny@1"]
    refused = [(ack.version, ack.reason) for ack in room.trainer.acks() if ack.state == "refused"]
    assert [version for version, _ in refused] == [2, 3]
    assert "max_lora_rank" in str(refused[0][1]) and "digest" in str(refused[1][1])
    assert room.trainer.acks()[-1].state == "serving" and room.serves(0, 0)


@pytest.mark.parametrize("call", ["models", "load_adapter", "unload_adapter"])
@pytest.mark.parametrize("trouble", ["refuse", "lose", "late", "drop", "hang", "die"])
def test_every_trouble_at_every_call(room: Room, call: str, trouble: str) -> None:
    for version in (1, 2, 3):
        vllm = room.vllm
        vllm.script = {(call, vllm.calls.count(call) + 1): trouble}
        room.trainer.adapter(version)
        room.turns(30, seconds=1.0)
    assert room.serves(0, 0)
    refused = {ack.version for ack in room.trainer.acks() if ack.state == "refused"}
    assert refused <= ({1, 2, 3} if (call, trouble) == ("load_adapter", "refuse") else set())
    assert {f"tiny@{v}" for v in (2, 3) if v not in refused} <= set(names(room))


def test_a_load_whose_answer_comes_late_is_not_sent_again(room: Room) -> None:
    room.trainer.adapter(1)
    room.vllm.script = {("load_adapter", 1): "late"}
    room.turns(30, seconds=1.0)
    assert names(room) == ["tiny@1"] and room.vllm.calls.count("load_adapter") == 1
    said = [ack.state for ack in room.trainer.acks() if ack.version == 1]
    assert said == ["loaded"], "it is served, so it is not refused"


def test_an_adapter_whose_bytes_cannot_be_had_is_tried_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise UpdateRefused("uri", "the store is away")

    room.trainer.adapter(1)
    with monkeypatch.context() as outage:
        outage.setattr(room.subscriber, "fetch", away)
        room.turns(10, seconds=1.0)
        assert names(room) == [] and room.serves(0, 0)
    room.turns(60, seconds=1.0)
    assert names(room) == ["tiny@1"]
    said = [ack.state for ack in room.trainer.acks() if ack.version == 1]
    assert said == ["refused", "loaded"]


@pytest.mark.parametrize("trouble", ["refuse", "drop"])
def test_no_swap_beside_an_adapter_of_other_weights(room: Room, trouble: str) -> None:
    room.trainer.adapter(1)
    room.turns()
    room.vllm.script = {("unload_adapter", 1): trouble}
    room.trainer.delta(2)
    room.turns()
    assert room.serves(0, 0) and names(room) == ["tiny@1"]
    room.turns()
    assert room.serves(0, 0), "not again at once"
    room.turns(seconds=1.0)
    assert room.serves(2, 2) and names(room) == []
    assert room.vllm.resumed_with == [[], []] and room.child.starts == 1


def test_a_vllm_that_keeps_an_adapter_of_other_weights_is_given_up(room: Room) -> None:
    room.trainer.adapter(1)
    room.turns()
    met = room.vllm
    met.script = {("unload_adapter", n): "refuse" for n in range(1, 99)}
    room.trainer.delta(2)
    room.turns(10, seconds=2.0)
    assert room.child.starts == 2 and room.serves(2, 2)
    assert met.served[-1] == (digest(tensors(0)), "0")
    assert not [ack for ack in room.trainer.acks() if ack.state == "refused"], "no version's fault"


def test_a_vllm_that_was_replaced_gets_them_again(rooms: Callable[..., Room]) -> None:
    room = rooms(supervised=False)
    room.trainer.keyframe(0)
    room.turns()
    room.trainer.adapter(1)
    room.turns()
    assert names(room) == ["tiny@1"]
    room.vllm = FakeVllm()  # its supervisor's doing, between two looks
    room.turns(2, seconds=2.0)
    assert room.serves(0, 0) and names(room) == ["tiny@1"]


def test_an_engine_without_adapters_says_so(rooms: Callable[..., Room]) -> None:
    room = rooms(adapters=False)
    room.trainer.keyframe(0)
    room.trainer.adapter(1)
    room.turns(3)
    assert room.serves(0, 0) and names(room) == []
    said = [(ack.state, ack.version, ack.reason) for ack in room.trainer.acks()]
    assert ("refused", 1, "adapter: kind: engine.adapters is off") in said
    assert "models" not in room.vllm.calls


def test_a_lineage_keeps_adapters_apart(room: Room) -> None:
    lineage = Lineage()
    base = ModelUpdate(version=0, created_ms=1, kind="keyframe", digest="a")
    assert lineage.add(base) and lineage.next_version == 1
    one = ModelUpdate(version=1, created_ms=1, kind="adapter", base_version=0, base_digest="a")
    assert lineage.add(one) and not lineage.add(one)
    assert lineage.head == base and lineage.next_version == 2
    assert lineage.served(None) == base and not lineage.add(base)
    assert adapters.newest(lineage, "a", 2) == [one] and adapters.newest(lineage, "b", 2) == []


def test_adapters_are_listed_among_the_versions(room: Room) -> None:
    room.trainer.adapter(1)
    room.trainer.delta(2)
    found = versions.gather(room.log, Common(model=MODEL)).versions
    assert [(v.version, v.base, v.kind, v.withdrawn) for v in found] == [
        (0, None, "keyframe", False),
        (1, 0, "adapter", False),
        (2, 0, "delta", False),
    ]


def test_a_publisher_takes_no_adapter_without_its_base(room: Room) -> None:
    with pytest.raises(ValueError, match="base 0 is not there"):
        room.trainer.adapter(1, base_digest="f" * 64)
    room.trainer.adapter(1)
    with pytest.raises(ValueError, match="not after the head"):
        room.trainer.delta(1)


def test_a_stream_without_a_config_is_no_adapter(room: Room) -> None:
    head = room.trainer.publisher.head()
    assert head is not None
    manifest = ModelUpdate(
        model=MODEL, version=1, created_ms=1, kind="adapter", digest=digest(tensors(1)),
        base_version=0, base_digest=head.digest,
    )  # fmt: skip
    stream = codec.encode_keyframe(tensors(1), {})
    update = room.trainer.publisher.publish(manifest, stream, [], [])
    room.subscriber.poll(0)
    with pytest.raises(UpdateRefused, match=adapters.CONFIG_FILE):
        adapters.fetch(room.subscriber, update)
