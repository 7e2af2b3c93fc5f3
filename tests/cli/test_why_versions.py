"""``tailrace why`` of a version: back to what moved it; which steps and records are read."""

from __future__ import annotations

import msgspec

from tailrace import ids, why
from tailrace.why.words import in_words
from tests.cli.play import Play
from tests.cli.river import BEGAN_MS, River


def test_a_version_back_to_what_moved_it(flowing: River) -> None:
    good, bad = flowing.turns()
    found = flowing.weights(1)
    assert [base.version for base in found.ancestors] == [0]
    assert [child.version for child in found.children] == [2]
    assert (found.served, found.trained, found.row.kind) == (False, False, "delta")
    assert found.outcomes == {"trained": 2} and found.objectives == {"reinforce": 2}
    (span,) = found.ranges
    assert (span.start, span.end) == (0, 2)
    assert [(m.interaction_id, m.advantage.value) for m in found.movers] == [(good, 1), (bad, -1)]
    assert found.canary is not None
    assert [token.logprob for token in found.canary.output] == [-0.5, -0.25]
    (step,) = found.steps
    assert (step.answers, step.figures["loss"]) == (2, 0.5)
    assert found.reward_mean == 0.0
    assert {one.engine: one.refused for one in found.serving} == {
        "one": None,
        "two": "canary: differs",
    }
    newest = flowing.weights(2)
    assert (newest.served, newest.trained, newest.movers, newest.steps) == (True, True, [], [])


def test_steps_are_found_on_a_log_with_other_times(flowing: River) -> None:
    """As on one that was copied: steps first, receipts a day later."""
    good, _ = flowing.turns()
    for entry in flowing.log._topics["steps"][0].entries:
        early_ms = entry.record.time_ms - 24 * 3_600_000
        entry.record = msgspec.structs.replace(entry.record, time_ms=early_ms)
    (decision,) = flowing.turn(good).decisions
    assert decision.trained is not None and decision.trained.step == 1
    found = flowing.weights(1)
    assert len(found.movers) == 2 and found.outcomes == {"trained": 2}


def test_an_adapter_lies_on_its_version_and_a_rollback_is_told(memory: Play) -> None:
    memory.scene.trainer.adapter(4)
    memory.engine("one")
    memory.give("rollback", 1)
    log, common, now_ms = memory.scene.log, memory.common, memory.wall_ms()
    found = [why.gather(log, common, str(v), now_ms=now_ms) for v in (1, 3, 4)]
    one, three, adapter = (each for each in found if isinstance(each, why.Weights))
    assert (one.served, one.trained, one.row.withdrawn) == (True, True, False)
    assert (three.served, three.row.withdrawn) == (False, True)
    assert [child.version for child in three.children] == [4]
    assert [(e.engine, e.serves) for e in one.serving] == [("one", True)]
    assert [(e.engine, e.serves, e.since_ms is None) for e in three.serving] == [
        ("one", False, False)
    ]
    assert adapter.row.kind == "adapter"
    assert [base.version for base in adapter.ancestors] == [3, 2, 1, 0]
    assert any("comes from 3 (withdrawn) <- 2 (withdrawn) <- 1" in w for w in in_words(adapter))


def test_only_what_the_chain_leads_to_is_read(flowing: River) -> None:
    good, _ = flowing.turns()
    seen: list[tuple[str, int]] = []
    flowing.now_ms += 100 * 3_600_000
    later = [flowing.ask("later", "b") for _ in range(3)]
    assert ids.turn_time_ms(later[0]) > BEGAN_MS
    consumer = flowing.log.consumer

    def watched(**given: object) -> object:
        made = consumer(**given)  # type: ignore[arg-type]
        poll = made.poll
        made.poll = lambda *a, **k: [  # type: ignore[method-assign]
            seen.append((record.topic, record.offset)) or record  # type: ignore[func-returns-value]
            for record in poll(*a, **k)
        ]
        return made

    flowing.log.consumer = watched  # type: ignore[method-assign, assignment]
    flowing.weights(1)
    read = [at for at in seen if at[0] in ("trajectories", "prompts", "outputs", "feedback")]
    assert sorted(read) == [("trajectories", 0), ("trajectories", 1)]
