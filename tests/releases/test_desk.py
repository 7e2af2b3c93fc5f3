"""Orders in, one release each: what it says, and that a crash or a second desk changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.releases.desk import COMMANDS
from tailrace import topics
from tailrace.errors import Fenced
from tailrace.events import Release
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.weights.publisher import Publisher
from tailrace.weights.releases import Releases, refusal
from tailrace.wire import Wire
from tests.engine.models import MODEL
from tests.releases.scene import Scene

POINTS = ("read", "answered", "written", "committed")


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.fixture
def scene(log: Log, prefix: str) -> Iterator[Scene]:
    made = Scene(log, prefix)
    yield made
    made.close()


@pytest.fixture
def memory() -> Iterator[Scene]:
    made = Scene(MemoryLog())
    yield made
    made.close()


def said(release: Release) -> tuple[Any, ...]:
    return release.mode, release.live, release.withdrawn_to, release.data


def test_orders_become_releases(scene: Scene) -> None:
    scene.versions(4)
    desk = scene.desk()
    assert desk.newest is None
    places = [
        scene.order("rollback", 1, reason="answers got longer"),
        scene.order("pin", 0),
        scene.order("follow"),
        scene.order("rollback", 2, parameters={"data": "retrain"}),
    ]
    while len(found := scene.releases()) < 4:
        desk.turn(0.2)
    assert [said(release) for release in found] == [
        ("follow", 1, 3, "skip"),
        ("pin", 0, None, None),
        ("follow", 1, 3, "skip"),
        ("follow", 2, 3, "retrain"),
    ]
    assert [release.command and release.command.offset for release in found] == places
    assert found[0].reason == "answers got longer"
    assert not any(refusal(release) for release in found)
    assert desk.newest == found[-1]


@pytest.mark.parametrize(
    ("command", "version", "more", "why"),
    [
        ("rollback", 9, {}, "there is no version 9; the newest is 3"),
        ("rollback", None, {}, "rollback names no version"),
        ("pin", -1, {}, "there is no version -1"),
        ("rollback", 1, {"parameters": {"data": "burn"}}, "data is 'burn', not skip or retrain"),
    ],
)
def test_what_cannot_be_obeyed_is_answered_with_what_is_in_force(
    memory: Scene, command: str, version: int | None, more: dict[str, Any], why: str
) -> None:
    memory.versions(4)
    desk = memory.desk()
    memory.order("pin", 2)
    before = COMMANDS.labels(command, "refused")._value.get()
    place = memory.order(command, version, **more)
    desk.turn(0)
    first, second = memory.releases()
    assert said(second) == said(first) == ("pin", 2, None, None)
    assert second.command is not None and second.command.offset == place
    assert why in (refusal(second) or "")
    assert COMMANDS.labels(command, "refused")._value.get() == before + 1


def test_a_refusal_before_any_release_changes_nothing_for_anybody(memory: Scene) -> None:
    desk = memory.desk()
    memory.order("rollback", 0)
    desk.turn(0)
    [release] = memory.releases()
    assert said(release) == ("follow", None, None, None)
    assert refusal(release) == "there is no version 0; the newest is none"


def test_a_version_whose_bytes_are_deleted_is_refused(memory: Scene) -> None:
    old, *_ = memory.versions(2)
    assert old.chunks is not None
    memory.log.delete_before(topics.MODEL_CHUNKS.name, {0: max(old.chunks.offsets) + 1})
    desk = memory.desk()
    memory.order("rollback", 0)
    desk.turn(0)
    assert "bytes are deleted" in (refusal(memory.releases()[0]) or "")


def test_a_keyframe_that_cannot_be_looked_for_is_not_said_to_be_deleted(
    memory: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.trainer.publisher.close()
    memory.trainer.publisher = Publisher(
        memory.log, Wire(), model=MODEL, keyframe_store="memory://desk"
    )
    old, *_ = memory.versions(2)
    desk = memory.desk()

    def info(store: object, path: str, **more: object) -> None:
        raise OSError("cannot connect")

    with monkeypatch.context() as away:
        away.setattr(MemoryFileSystem, "info", info)
        memory.order("rollback", 0)
        desk.turn(0)
    memory.order("rollback", 0)
    desk.turn(0)
    fsspec.filesystem("memory").store.clear()
    memory.order("pin", 1)
    desk.turn(0)
    away_, obeyed, deleted = map(refusal, memory.releases())
    assert away_ is not None and deleted is not None
    assert "version 0 cannot be looked for now, order it again" in away_ and str(old.uri) in away_
    assert obeyed is None
    assert "version 1 cannot be made any more: its bytes are deleted" in deleted


def test_orders_of_others_are_left_to_them(memory: Scene) -> None:
    memory.versions(2)
    desk = memory.desk()
    memory.order("freeze")
    memory.order("rollback", 0, model="another")
    producer = memory.log.producer()
    producer.append(topics.CONTROL.name, b"rubbish", key=b"tiny").result(10)
    producer.close()
    place = memory.order("pin", 0)
    desk.turn(0)
    [release] = memory.releases()
    assert release.command is not None and release.command.offset == place


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_each_order_has_one_release(memory: Scene, point: str) -> None:
    memory.versions(4)

    def crash(at: str) -> None:
        if at == point:
            raise Killed

    for command, version in (("rollback", 1), ("rollback", 9), ("pin", 3)):
        memory.order(command, version)
        desk = memory.desk(crash)
        with pytest.raises(Killed):
            desk.turn(0)
        memory.lose(desk)
        memory.versions(1)
    desk = memory.desk()
    desk.turn(0)
    found = memory.releases()
    assert [release.command and release.command.offset for release in found] == [0, 1, 2]
    assert [release.live for release in found] == [1, 1, 3]
    assert [refusal(release) is None for release in found] == [True, False, True]


def test_a_second_desk_fences_the_first(scene: Scene) -> None:
    scene.versions(2)
    first = scene.desk()
    second = scene.desk()
    scene.order("pin", 0)
    with pytest.raises(Fenced):
        for _ in range(50):
            first.turn(0.2)
    while not scene.releases():
        second.turn(0.2)
    assert [said(release) for release in scene.releases()] == [("pin", 0, None, None)]


def test_an_order_that_came_while_nobody_ran_is_obeyed_by_the_next(memory: Scene) -> None:
    memory.versions(3)
    memory.order("rollback", 1)
    memory.versions(1)
    desk = memory.desk()
    desk.turn(0)
    assert [said(release) for release in memory.releases()] == [("follow", 1, 3, "skip")]


orders = st.one_of(
    st.just(("follow", None)),
    st.tuples(st.sampled_from(["rollback", "pin"]), st.integers(0, 7)),
    st.just(("publish", None)),
    st.just(("restart", None)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(orders, max_size=12))
def test_any_orders_and_restarts(history: list[tuple[str, int | None]]) -> None:
    """One release per order, in order; a pin never changes what is trained on, and what is served
    is what was asked for last."""
    scene = Scene(MemoryLog())
    scene.versions(1)
    desk = scene.desk()
    given = 0
    for command, version in history:
        if command == "publish":
            scene.versions(1)
            continue
        if command == "restart":
            desk = scene.desk()
            continue
        before = Releases(scene.log, Wire(), model=MODEL)
        before.poll()
        place = scene.order(command, version)
        given += 1
        desk.turn(0)
        after = Releases(scene.log, Wire(), model=MODEL)
        after.poll()
        release = after.answers[place]
        lineage = scene.trainer.publisher._lineage
        if refusal(release) is not None:
            assert lineage.served(release) == lineage.served(before.newest)
        elif command == "follow":
            assert lineage.served(release) == lineage.served(before.followed)
        else:
            served = lineage.served(release)
            assert served is not None and served.version == version
        if command == "pin" and refusal(release) is None:
            assert after.followed == before.followed
    assert [r.command and r.command.offset for r in scene.releases()] == list(range(given))
    scene.close()
