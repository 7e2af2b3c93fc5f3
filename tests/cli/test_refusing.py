"""An engine that refuses what is ordered goes on with another version: its refusal counts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailrace import topics
from tailrace.events import ModelAck
from tailrace.stream import Writer
from tailrace.weights import trust
from tailrace.wire import Wire
from tests.cli.play import Engine, Play
from tests.engine.models import MODEL


class Refusing(Engine):
    """Where it refuses it says why, and at once that it serves the version before."""

    def ack(self, state: str, version: int) -> None:
        super().ack(state, version)
        if state == "refused":
            said = ModelAck(
                engine=self.name,
                model=MODEL,
                version=version,
                event_time_ms=1,
                state=state,
                reason="corrupt: sha256 differs",
            )
            Writer(self._producer, Wire()).write(topics.MODEL_ACKS, said).result(10)
            super().ack("applied", version - 1)


def refusing(play: Play) -> Refusing:
    engine = Refusing(play.scene, "one")
    play.engines.append(engine)
    engine.turn()
    return engine


def test_its_refusal_ends_the_wait_and_is_told(memory: Play) -> None:
    refusing(memory).refuses = True
    memory.engine("two")
    outcome = memory.give("rollback", 1)
    assert not outcome.ok and outcome.seconds < 10
    said = "it is in force, but not there yet: one (refused 1: corrupt: sha256 differs)"
    assert outcome.problem == said
    assert [(e.engine, e.state, e.version) for e in outcome.engines] == [
        ("one", "applied", 0),
        ("two", "applied", 1),
    ]


def test_the_others_are_still_waited_for(memory: Play) -> None:
    refusing(memory).refuses = True
    memory.engine("two").away = True
    outcome = memory.give("rollback", 1, timeout_s=5)
    assert outcome.seconds > 5 and (outcome.problem or "").endswith(", two (applied 3)")


def test_what_was_refused_before_the_order_may_be_tried_again(memory: Play) -> None:
    engine = refusing(memory)
    engine.ack("refused", 1)
    assert memory.give("rollback", 1).ok
    assert memory.give("rollback", 2).ok
    engine.ack("refused", 1)
    engine.away = True
    outcome = memory.give("rollback", 1, timeout_s=5)
    assert outcome.seconds > 5 and "one (refused 1: corrupt" in (outcome.problem or "")


def test_what_is_in_force_is_said_once_where_nobody_knows_the_version(
    memory: Play, tmp_path: Path
) -> None:
    memory.engine("one")
    trust.new_key(tmp_path / "key")
    keys = (tmp_path / "key.pub",)
    memory.common = msgspec.structs.replace(memory.common, trusted_keys=keys)
    outcome = memory.give("follow", timeout_s=5)
    assert not outcome.ok and "one (applied 3)" in (outcome.problem or "")
    assert [line for line in memory.lines if "in force" in line] == memory.lines
    assert len(memory.lines) == 1
