"""What becomes of feedback: one scenario a rule. Times are the log's; a tick a second."""

from __future__ import annotations

import msgspec
import pytest

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tailrace import events, ids
from tests.rewards.history import History, Result, interaction_of, read_in_order

SPEC = Spec(
    wait_s=5,
    orphan_s=20,
    horizon_s=3600,
    metrics={"thumbs": Metric(true=1.0, false=-1.0), "done": Metric(final=True)},
)


class Story(History):
    """A history told in seconds, ticking as it goes."""

    def turn(self, session: str = "default:s", choices: int = 1, **prompt: object) -> str:
        interaction = interaction_of(session, self.now_ms, len(self.logs["prompts"]))
        self.prompt(interaction, **prompt)  # type: ignore[arg-type]
        for choice in range(choices):
            self.output(interaction, choice)
        return interaction

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.wait(1)
            self.tick()

    def end(self, spec: Spec = SPEC) -> Result:
        self.run(30)
        return read_in_order(self, spec).result


def rewards(result: Result) -> list[tuple[int, float | None]]:
    return [(t.revision, t.reward) for t in result.revisions()]


def test_silence_has_the_default_reward() -> None:
    story = Story()
    story.turn()
    assert rewards(story.end()) == [(0, None)]
    assert rewards(story.end(msgspec.structs.replace(SPEC, default_reward=0.25))) == [(0, 0.25)]


def test_feedback_may_come_before_its_prompt() -> None:
    story = Story()
    interaction = interaction_of("default:s", story.now_ms, 1)
    early = story.feedback(interaction, "a")
    story.run(3)
    story.output(interaction)
    story.run(2)
    story.prompt(interaction)
    result = story.end()
    assert rewards(result) == [(0, 1.0)]
    assert result.outcomes() == {early: "joined"}


def test_the_deadline_is_the_outputs_time_and_the_window() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(5)
    inside = story.feedback(interaction, "inside")
    story.wait(0.001)
    outside = story.feedback(interaction, "outside", boolean=False)
    result = story.end()
    first, second = result.revisions()
    assert (first.reward, second.reward) == (1.0, -1.0)
    assert (second.revision, second.supersedes) == (1, first.trajectory_id)
    assert first.closed_log_time_ms == first.output_log_time_ms + 5000  # type: ignore[operator]
    assert second.last_feedback_log_time_ms == second.output_log_time_ms + 5001  # type: ignore[operator]
    assert result.outcomes() == {inside: "joined", outside: "corrected"}
    dropped = story.end(msgspec.structs.replace(SPEC, late="drop"))
    assert rewards(dropped) == [(0, 1.0)]
    assert dropped.outcomes() == {inside: "joined", outside: "late"}


def test_a_final_signal_closes_early() -> None:
    story = Story()
    interaction = story.turn()
    story.run(1)
    story.feedback(interaction, "thumb")
    story.feedback(interaction, "done", metric="done")
    story.wait(0.5)
    late = story.feedback(interaction, "late", boolean=False)
    result = story.end()
    first = result.revisions()[0]
    assert first.closed_log_time_ms == first.output_log_time_ms + 1000  # type: ignore[operator]
    assert first.feedback_ids == [f"{interaction}!thumb", f"{interaction}!done"]
    assert result.outcomes()[late] == "corrected"


def test_the_same_id_again() -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a")
    story.wait(1)
    again = story.feedback(interaction, "a")
    rotated = story.feedback(interaction, "a", principal="key-2")
    other = story.feedback(interaction, "a", boolean=False)
    result = story.end()
    assert result.outcomes() == {
        **{first: "joined", again: "duplicate", rotated: "duplicate"},
        other: "conflict",
    }
    assert rewards(result) == [(0, 1.0)]


def test_changing_ones_mind() -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a")
    second = story.feedback(interaction, "b", boolean=False, replaces=f"{interaction}!a")
    lost = story.feedback(interaction, "c", replaces=f"{interaction}!never", metric="other")
    result = story.end()
    assert result.outcomes() == {first: "replaced", second: "joined", lost: "joined"}
    assert rewards(result) == [(0, -1.0)]


def test_taking_it_back() -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a")
    retract = {"action": "retract", "replaces": f"{interaction}!a"}
    taken = story.feedback(interaction, "b", **retract)
    twice = story.feedback(interaction, "c", **retract)
    result = story.end()
    assert result.outcomes() == {first: "withdrawn", taken: "applied", twice: "no_target"}
    assert rewards(result) == [(0, None)]


@pytest.mark.parametrize("late", ["correct", "drop"])
def test_taking_it_back_after_the_closing(late: str) -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a")
    story.run(10)
    taken = story.feedback(interaction, "b", action="retract", replaces=f"{interaction}!a")
    result = story.end(msgspec.structs.replace(SPEC, late=late))
    assert result.outcomes() == {first: "joined", taken: "applied"}
    assert rewards(result) == [(0, 1.0), (1, None)]


def test_a_target_must_be_earlier() -> None:
    story = Story()
    interaction = story.turn()
    taken = story.feedback(interaction, "b", action="retract", replaces=f"{interaction}!a")
    later = story.feedback(interaction, "a")
    result = story.end()
    assert result.outcomes() == {taken: "no_target", later: "joined"}


def test_without_consent_there_is_no_content_and_no_reward() -> None:
    story = Story()
    interaction = story.turn(learn=False)
    offset = story.feedback(interaction, "a")
    story.run(10)
    late = story.feedback(interaction, "b")
    result = story.end()
    (one,) = result.revisions()
    assert (one.learn, one.reward, one.content, one.feedback_ids) == (False, None, None, [])
    assert result.outcomes() == {offset: "unconsented", late: "unconsented"}


def test_orphans() -> None:
    story = Story()
    nobody = interaction_of("default:s", story.now_ms, 7)
    lonely = story.feedback(nobody, "a")
    session = story.feedback("default:empty", "b")
    story.prompt(interaction_of("default:s", story.now_ms, 8))
    story.output(interaction_of("default:s", story.now_ms, 9))
    story.run(25)
    story.output(interaction_of("default:s", story.now_ms - 25_000, 8))  # after its prompt closed
    story.run(1)
    reader = read_in_order(story, SPEC)
    assert reader.result.trajectories == {}
    assert reader.result.outcomes() == {lonely: "orphan", session: "orphan"}
    assert reader.join.counts["prompts", "orphan"] == reader.join.counts["outputs", "orphan"] == 1
    assert not reader.join.busy


def test_session_feedback_is_credited_to_the_turns_before_it() -> None:
    story = Story()
    first, second = story.turn(choices=2), story.turn()
    story.turn(session="default:other")
    story.run(2)
    offset = story.feedback("default:s", "all", boolean=False)
    story.wait(1)
    story.turn()
    result = story.end()
    credited = {(t.interaction_id, t.choice) for t in result.revisions() if t.feedback_ids}
    assert credited == {(first, 0), (first, 1), (second, 0)}
    assert result.outcomes() == {offset: "joined"}
    receipt = msgspec.msgpack.decode(next(iter(result.receipts[offset])))["record"]
    assert len(receipt["trajectories"]) == 3


def test_session_feedback_waits_for_its_last_turn_and_takes_the_best_outcome() -> None:
    story = Story()
    story.turn()
    story.run(10)
    story.turn()
    offset = story.feedback("default:s", "all")
    result = story.end()
    assert rewards(result) == [(0, None), (1, 1.0), (0, 1.0)]
    assert result.outcomes() == {offset: "joined"}


def test_members_of_a_group_share_no_session_credit() -> None:
    story = Story()
    story.turn(group_id="g")
    offset = story.feedback("default:s", "all")
    result = story.end()
    assert rewards(result) == [(0, None)]
    assert result.outcomes() == {offset: "orphan"}


def test_past_the_horizon() -> None:
    story = Story()
    interaction = story.turn()
    first = story.feedback(interaction, "a")
    story.run(8)
    story.wait(3600)
    late = story.feedback(interaction, "b")
    taken = story.feedback(interaction, "c", action="retract", replaces=f"{interaction}!a")
    story.output(interaction, 1)
    story.run(3)
    reader = read_in_order(story, SPEC)
    assert reader.result.outcomes() == {first: "joined", late: "late", taken: "no_target"}
    assert reader.join.counts["outputs", "horizon"] == 1


def test_a_turn_from_the_future_is_impossible() -> None:
    story = Story()
    offset = story.feedback(interaction_of("default:s", story.now_ms + 90_000_000, 1), "a")
    assert story.end().outcomes() == {offset: "invalid"}


def test_an_error_is_no_bad_answer_and_lost_content_has_its_place() -> None:
    story = Story()
    failed = interaction_of("default:s", story.now_ms, 1)
    story.prompt(failed)
    story.output(failed, error="engine")
    lost = interaction_of("default:s", story.now_ms, 2)
    story.prompt(lost)
    story.output(lost, untrainable="capture_lost")
    offsets = [story.feedback(failed, "a", boolean=False), story.feedback(lost, "b")]
    result = story.end()
    facts = [(t.error, t.untrainable, t.reward) for t in result.revisions()]
    assert facts == [("engine", None, None), (None, "capture_lost", 1.0)]
    assert result.outcomes() == dict.fromkeys(offsets, "joined")


def test_an_answer_that_cannot_be_parsed_has_its_reward() -> None:
    story = Story()
    interaction = interaction_of("default:s", story.now_ms, 1)
    story.prompt(interaction)
    nested = events.OutputContent(message="[" * 100_000 + "]" * 100_000)
    story.append(
        "outputs",
        events.Output(interaction_id=interaction, event_time_ms=story.now_ms, content=nested),
    )
    story.feedback(interaction, "a")
    assert rewards(story.end()) == [(0, 1.0)]


def test_repeated_turns_are_counted_and_passed_over() -> None:
    story = Story()
    interaction = story.turn()
    story.prompt(interaction)
    story.output(interaction)
    reader = read_in_order(story, SPEC)
    assert reader.join.counts == {("prompts", "repeated"): 1, ("outputs", "repeated"): 1}


def test_a_tick_that_knows_no_time_decides_nothing() -> None:
    story = Story()
    interaction = story.turn()
    story.run(8)
    story.feedback(interaction, "late")
    story.wait(1)
    story.tick(first=True)
    assert rewards(read_in_order(story, SPEC).result) == [(0, None)]
    result = story.end()
    assert rewards(result) == [(0, None), (1, 1.0)]
    assert all(b"event_time_ms\x00" not in value for [value] in result.receipts.values())


def test_ids_do_not_depend_on_the_run() -> None:
    story = Story()
    interaction = story.turn()
    story.feedback(interaction, "a")
    (one,) = story.end().revisions()
    assert one.trajectory_id == ids.trajectory(interaction, 0, ["r0", f"{interaction}!a"])
