"""The engine loop on a log in memory and a fake vLLM: what is served, acked and refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tailrace.errors import LogError
from tailrace.log.kafka import KafkaLog
from tailrace.weights.releases import Releases
from tailrace.weights.tensors import Tensor, digest
from tests.engine.fakes import FakeVllm
from tests.engine.models import MODEL, Trainer, canary, tensors
from tests.engine.room import Room

CALLS = (
    *("pause", "start", "update", "finish", "weight_info", "resume"),
    *("is_paused", "label", "score"),
)
TROUBLES = ("refuse", "lose", "late", "drop", "hang", "die")


def test_version_0_is_swapped_in_before_ready(room: Room) -> None:
    assert room.engine.reason() is not None
    room.turns()
    assert room.serves(0, 0)
    assert room.acks() == [("applied", 0, None)]
    order = ["laid", "paused", "started", "updated", "finished", "resumed", "checked", "acked"]
    assert room.points == order


def test_versions_that_came_meanwhile_are_swapped_in_once(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    for version in (1, 2, 3):
        room.trainer.delta(version)
    room.turns()
    assert room.serves(3, 3)
    assert room.acks() == [("applied", 0, None), ("applied", 3, None)]
    assert room.vllm.calls.count("pause") == 2
    last = room.trainer.acks()[-1]
    assert last.pause_ms and last.apply_ms and last.digest == digest(tensors(3))


def test_a_zero_step_version_changes_the_label_alone(room: Room) -> None:
    room.trainer.keyframe(0)
    room.trainer.delta(1)
    room.turns()
    pauses = room.vllm.calls.count("pause")
    room.trainer.nothing(2)
    room.turns()
    assert room.serves(1, 2)
    assert room.vllm.calls.count("pause") == pauses
    assert room.acks()[-1] == ("applied", 2, None) and room.trainer.acks()[-1].pause_ms is None


def test_a_folder_that_is_not_version_0_gives_way_to_the_keyframe(
    rooms: Callable[..., Room],
) -> None:
    room = rooms(base=9)
    room.trainer.keyframe(0)
    room.trainer.delta(1)
    room.turns()
    assert room.serves(1, 1)


def test_a_canary_that_differs_is_swapped_back(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    room.vllm.logprobs[digest(tensors(1))] = [-1.0, -5.0, -5.0]
    room.trainer.delta(1, canary=canary([-1.0, -1.0]))
    room.turns()
    assert room.serves(0, 0)
    assert room.acks()[1][:2] == ("refused", 1)
    assert "canary: mean difference 4" in str(room.acks()[1][2])
    assert room.acks()[2] == ("applied", 0, None)
    room.turns(3)
    assert len(room.acks()) == 3, "a refused version is not tried again"
    room.trainer.delta(2, canary=canary([-1.0, -1.0]))
    room.turns()
    assert room.serves(2, 2)


def test_a_canary_without_answer_is_unknown(room: Room) -> None:
    room.trainer.keyframe(0)
    room.vllm.script[("score", 1)] = "drop"
    room.trainer.delta(1, canary=canary([-1.0]))
    room.turns()
    assert room.serves(1, 1)
    assert room.acks()[-1] == ("applied", 1, "canary: unknown, no answer in time")


def test_without_anything_to_go_back_to_it_serves_and_says_so(room: Room) -> None:
    room.vllm.logprobs[digest(tensors(0))] = [-9.0, -9.0]
    room.trainer.keyframe(0, canary=canary([-1.0]))
    room.turns()
    assert room.serves(0, 0)
    assert "mean difference" in str(room.acks()[-1][2])


@pytest.mark.parametrize("supervised", [True, False], ids=["supervised", "attached"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_trouble_at_every_call(
    rooms: Callable[..., Room], call: str, trouble: str, supervised: bool
) -> None:
    room = rooms(supervised=supervised)
    room.trainer.keyframe(0)
    room.turns()
    met = []
    for version in (1, 2):
        vllm = room.vllm
        vllm.script = {(call, vllm.calls.count(call) + 1): trouble}
        if version == 1:
            room.trainer.delta(1, canary=canary([-1.0]))
        else:
            room.trainer.nothing(2)
        room.turns(12, seconds=1.0)
        met.append(vllm)
        if not supervised and not room.serves(1, version):
            assert vllm.hung or vllm.dead or vllm.paused, "it does not serve something else"
            assert room.engine.reason() is not None
            room.vllm = FakeVllm()  # its supervisor's doing
        room.turns(30, seconds=1.0)
        assert room.serves(1, version), room.engine.reason()
    whole = {(digest(tensors(0)), "0"), (digest(tensors(1)), "1"), (digest(tensors(1)), "2")}
    for vllm in [*met, room.vllm]:
        assert set(vllm.served) <= whole | {("base", "default")}
    assert {ack[:2] for ack in room.acks()} >= {("applied", 1), ("applied", 2)}


def test_a_version_that_never_loads_is_refused(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    room.trainer.delta(1)
    room.vllm.script = room.script = {("update", n): "refuse" for n in (1, 2, 3)}
    room.turns(2, seconds=60.0)
    assert room.child.starts == 2 and room.engine.reason() is not None
    room.script = {}
    room.turns(2, seconds=60.0)
    assert room.serves(0, 0)
    assert ("refused", 1) in [ack[:2] for ack in room.acks()]


def test_a_dead_vllm_is_restarted_and_swapped_before_ready(room: Room) -> None:
    room.trainer.keyframe(0)
    room.trainer.delta(1)
    room.turns()
    room.vllm.dead, room.child.code = True, -9
    room.turns()
    assert "exit code -9" in str(room.engine.reason())
    room.turns(2, seconds=2.0)
    assert room.child.starts == 2 and room.serves(1, 1)
    assert room.vllm.served == [("base", "default"), (digest(tensors(1)), "1")]


def test_a_pause_is_of_an_update_while_serving(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    room.trainer.delta(1)
    room.turns()
    room.vllm.dead, room.child.code = True, -9
    room.turns(3, seconds=2.0)
    assert room.child.starts == 2 and room.serves(1, 1)
    acks = room.trainer.acks()
    assert [ack.version for ack in acks if ack.state == "applied"] == [0, 1, 1]
    assert [ack.pause_ms is not None for ack in acks] == [False, True, False]


def test_a_hung_vllm_is_given_up(room: Room) -> None:
    room.turns()
    room.vllm.hung = True
    room.turns(12, seconds=2.0)
    assert room.child.starts == 2 and room.serves(0, 0)


def test_attached_to_a_vllm_that_was_replaced(rooms: Callable[..., Room]) -> None:
    room = rooms(supervised=False)
    room.turns()
    assert room.serves(0, 0) and room.child.starts == 0
    room.vllm = FakeVllm()
    room.turns(2, seconds=2.0)
    assert room.serves(0, 0)
    room.vllm.dead = True
    room.turns(8, seconds=2.0)
    assert room.engine.reason() is not None
    room.vllm = FakeVllm()
    room.turns(8, seconds=10.0)
    assert room.serves(0, 0)


def test_attached_to_a_vllm_without_our_plugin(rooms: Callable[..., Room]) -> None:
    room = rooms(supervised=False)
    room.lacks = "no plugin"
    room.turns(3, seconds=2.0)
    assert room.engine.reason() == "vllm is down: no plugin" and room.vllm.calls == []
    room.lacks = None
    room.turns(2, seconds=60.0)
    assert room.serves(0, 0)


def test_a_vllm_frozen_by_somebody_is_woken(room: Room) -> None:
    room.turns()
    room.vllm.paused = True
    room.turns(2, seconds=2.0)
    assert room.serves(0, 0)


def test_a_pinned_version(room: Room) -> None:
    room.trainer.keyframe(0)
    for version in (1, 2):
        room.trainer.delta(version)
    room.turns()
    room.trainer.release("pin", 1)
    room.turns()
    assert room.serves(1, 1)
    room.trainer.delta(3)
    room.turns()
    assert room.serves(1, 1)
    room.trainer.release("pin", 77)
    room.turns()
    assert room.serves(1, 1), "a pin to a version that nobody knows leaves it where it is"
    room.trainer.release("follow", None)
    room.turns()
    assert room.serves(3, 3)


@pytest.mark.kafka
def test_a_pin_is_known_from_the_first_look(broker, prefix: str) -> None:  # type: ignore[no-untyped-def]
    log = KafkaLog(broker.bootstrap)
    trainer = Trainer(log, prefix)
    trainer.release("follow", None)
    trainer.release("pin", 4)
    releases = Releases(log, trainer.wire, model=MODEL, prefix=prefix)
    releases.poll()
    assert releases.newest is not None and releases.newest.live == 4
    assert releases.followed is not None and releases.followed.live is None
    releases.close()
    trainer.close()
    log.close()


def test_heartbeat(room: Room) -> None:
    room.turns()
    room.turns(3, seconds=31.0)
    assert [ack[0] for ack in room.acks()] == ["applied", "serving", "serving", "serving"]


def test_a_silent_log_does_not_stop_serving(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise LogError("no broker")

    monkeypatch.setattr(room.subscriber, "catch_up", silent)
    monkeypatch.setattr(room.subscriber, "poll", silent)
    room.turns(2, seconds=1.0)
    assert room.engine.reason() is not None, "it waits a while for what the log may have"
    room.turns(2, seconds=31.0)
    assert room.serves(0, 0)


def test_a_dtype_that_vllm_cannot_be_given(room: Room) -> None:
    room.trainer.keyframe(0)
    room.turns()
    odd = Tensor.of("uint64", (2,), np.zeros(2, dtype=np.uint64))
    room.trainer.whole(1, tensors(1) | {"odd": odd}, 1)
    room.turns(3)
    assert room.serves(0, 0)
    refused = [(version, reason) for state, version, reason in room.acks() if state == "refused"]
    assert refused == [(1, "kind: tensors of ['uint64']")]
    room.trainer.keyframe(2)
    room.turns()
    assert room.serves(2, 2)


def test_no_room_for_the_file(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.trainer.keyframe(0)
    room.turns()

    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(room.engine._slot, "write", full)
    room.trainer.delta(1)
    room.turns(2)
    assert room.serves(0, 0)
    assert room.acks()[-1] == ("refused", 1, "no room: no space")
