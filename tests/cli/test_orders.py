"""Orders about versions wait for the engines, or say why they are not obeyed."""

from __future__ import annotations

import pytest

from tailrace import topics
from tests.cli.play import Play


def test_a_rollback_waits_until_every_engine_is_there(play: Play) -> None:
    one, two = play.engine("one"), play.engine("two")
    assert (one.serves, two.serves) == (3, 3)
    outcome = play.give("rollback", 1, reason="too long", principal="ops", timeout_s=30)
    assert outcome.ok, outcome
    assert outcome.release is not None
    assert (outcome.release.live, outcome.release.withdrawn_to) == (1, 3)
    assert [(e.engine, e.state, e.version) for e in outcome.engines] == [
        ("one", "applied", 1),
        ("two", "applied", 1),
    ]
    assert any("in force: goes on from version 1" in line for line in play.lines), play.lines
    assert any("engine two: applied version 1" in line for line in play.lines)


def test_a_pin_and_its_end(memory: Play) -> None:
    engine = memory.engine("one")
    assert memory.give("pin", 0).ok and engine.serves == 0
    assert memory.give("follow").ok and engine.serves == 3
    assert memory.give("rollback", 2).ok and engine.serves == 2
    assert memory.give("pin", 3).ok and engine.serves == 3
    assert memory.give("follow").ok and engine.serves == 2, "what was rolled back stays so"


def test_a_version_that_is_not_there_is_never_ordered(memory: Play) -> None:
    with pytest.raises(ValueError, match="no version 9 of tiny: the newest is 3"):
        memory.give("rollback", 9)
    assert memory.scene.log.ends(topics.CONTROL.name) == {0: 0}


def test_a_refusal_is_told(memory: Play) -> None:
    first = memory.scene.trainer.publisher.version(0)
    assert first is not None and first.chunks is not None
    last = max(first.chunks.offsets)
    memory.scene.log.delete_before(topics.MODEL_CHUNKS.name, {0: last + 1})
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "bytes are deleted" in (outcome.problem or "")


def test_without_a_releases_service_the_order_stands(memory: Play) -> None:
    memory.engine("one")
    memory.desk = None
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "no releases service answered" in (outcome.problem or "")
    assert "control/0/0" in (outcome.problem or "")
    memory.scene.desk().turn(0)
    assert memory.scene.releases()[0].live == 1


def test_a_later_order_ends_the_wait_unless_it_is_refused(memory: Play) -> None:
    memory.engine("one").away = True
    memory.scene.order("pin", 77)  # it comes first, and is refused
    order = memory.scene.order
    real = memory.clock
    given = []

    def clock() -> float:
        if memory.scene.releases() and len(given) < 2:
            given.append(order("pin", 88) if not given else order("pin", 0))
        return real()

    memory.clock = clock  # type: ignore[method-assign]
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and outcome.release is not None and outcome.release.live == 1
    assert outcome.problem == "another order came after it: version 0 is pinned"


def test_an_engine_that_does_not_come_is_named(memory: Play) -> None:
    memory.engine("one")
    memory.engine("two").away = True
    outcome = memory.give("rollback", 1, timeout_s=5)
    assert not outcome.ok and "two (applied 3)" in (outcome.problem or "")
    assert "one" not in (outcome.problem or "").split()


def test_an_engine_that_refuses_ends_the_wait(memory: Play) -> None:
    memory.engine("one").refuses = True
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "one (refused 1)" in (outcome.problem or "")
    assert outcome.seconds < 10


def test_an_engine_that_was_not_heard_for_a_minute_is_not_waited_for(memory: Play) -> None:
    memory.engine("gone").away = True
    memory.later_ms = 61_000
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and "no engine was heard" in (outcome.problem or "")
    assert outcome.release is not None and [e.stale for e in outcome.engines] == [True]
