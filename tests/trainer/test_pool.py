"""What belongs together is taken together: groups, pairs; and demonstrations are what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import msgspec

from services.trainer.answer import Answer, as_trained, input_of, read
from services.trainer.demonstrations import encoder_of
from services.trainer.routes import Divergence
from tailrace import ids
from tailrace.events import StepInput, Trajectory, TrajectoryContent
from tailrace.packing import pack_ids
from tests.trainer.test_intake import Reading
from tests.trainer.traffic import TIME_MS, trajectory

WAIT_S = 30.0


def member(number: int, group: str = "g", size: int | None = 3, **fields: Any) -> Trajectory:
    """An answer of a group: all in one session."""
    first = trajectory(0)
    session = ids.session_of(first.interaction_id)
    interaction = f"{session}~{number:013d}"
    values = {"interaction_id": interaction, "group_id": group, "group_size": size} | fields
    return trajectory(number, trajectory_id=f"t{number}", **values)


def choice(number: int, below: list[int] = [], **fields: Any) -> Trajectory:  # noqa: B006
    """One of several answers to the prompt of trajectory 0."""
    asked = trajectory(0)
    content = asked.content
    assert content is not None
    fields |= {"preferred_over": [ids.answer(asked.interaction_id, n) for n in below]}
    fields |= {"trajectory_id": f"t{number}", "choice": number}
    return trajectory(0, **fields)


def shown(number: int, text: str = "like this", **fields: Any) -> Trajectory:
    """An answer that somebody edited."""
    content = trajectory(number).content
    assert content is not None
    edited = msgspec.structs.replace(content, demonstration=text)
    return trajectory(number, content=edited, **fields)


def names(answers: list[Answer]) -> list[tuple[str, str]]:
    return [(answer.trajectory_id, answer.objective) for answer in answers]


def test_a_group_waits_until_it_is_whole_and_is_taken_whole() -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    for number in (1, 2):
        assert reading.offer(member(number)) is None
    assert reading.intake.usable == 0 and reading.intake.take(8) == []
    reading.offer(member(3))
    reading.offer(trajectory(4))
    assert reading.intake.usable == 4
    assert [name for name, _ in names(reading.intake.take(2))][:3] == ["t1", "t2", "t3"]


def test_what_never_becomes_whole_is_taken_as_it_is() -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    reading.offer(member(1))
    reading.offer(member(2), now_s=WAIT_S - 1.0)
    assert reading.intake.usable == 0
    reading.intake.refresh(WAIT_S)
    assert reading.intake.usable == 2 and len(reading.intake.take(1)) == 2


def test_a_drain_does_not_wait() -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    reading.offer(member(1))
    reading.offer(choice(2, below=[3]))
    assert reading.intake.take(8) == []
    assert len(reading.intake.take(8, whole=False)) == 2


def test_a_group_beyond_a_batch_is_taken_in_parts() -> None:
    reading = Reading(batch_answers=4)
    for number in range(10):
        reading.offer(member(number, size=10))
    taken = [len(reading.intake.take(4)) for _ in range(2)]
    assert taken == [6, 4]


def test_groups_of_two_sessions_are_two() -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    reading.offer(trajectory(1, group_id="1", group_size=2))
    reading.offer(trajectory(2, group_id="1", group_size=2))
    assert reading.intake.usable == 0


def test_two_answers_of_which_one_was_preferred_are_a_pair_in_either_order() -> None:
    for order in ([choice(0, below=[1]), choice(1)], [choice(1), choice(0, below=[1])]):
        reading = Reading()
        for event in order:
            reading.offer(event)
        assert names(reading.intake.take(1)) == [("t0", "dpo"), ("t1", "dpo")]


def test_each_answer_is_in_one_pair_at_most() -> None:
    reading = Reading()
    reading.offer(choice(0, below=[1, 2]))
    reading.offer(choice(1, below=[2]))
    reading.offer(choice(2))
    taken = dict(names(reading.intake.take(8)))
    assert taken == {"t0": "dpo", "t1": "dpo", "t2": "cispo"}


def test_a_preferred_answer_waits_for_its_rival_and_goes_alone() -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    reading.offer(choice(0, below=[1]))
    assert reading.intake.usable == 0
    reading.intake.refresh(WAIT_S)
    assert names(reading.intake.take(8)) == [("t0", "kto")]
    elsewhere = trajectory(5, preferred_over=[trajectory(6).interaction_id + "/0"])
    reading = Reading(batch_wait_s=WAIT_S)
    reading.offer(trajectory(6))
    reading.offer(elsewhere)
    assert reading.intake.usable == 2, "its rival is there, and answers another prompt"


def test_an_edit_is_trained_on_as_what_should_have_been_said() -> None:
    reading = Reading()
    reading.encodes()
    reading.offer(shown(1, "so", reward=None, sampling={"temperature": "0"}, untrainable="seed"))
    [answer] = reading.intake.take(8)
    assert (answer.objective, answer.tokens) == ("sft", [ord("s"), ord("o"), 2])
    assert answer.logprobs == [0.0] * 3 and answer.reward == 0.0
    reading.intake.settle([answer], 0.0, "trained")
    reading.offer(shown(2, "x" * 100))
    assert names(reading.intake.take(8)) == [(trajectory(2).trajectory_id, "cispo")]


def test_without_a_tokenizer_an_edit_is_only_what_the_reward_makes_of_it() -> None:
    reading = Reading()
    said = {"reward": None, "feedback_ids": ["edit"]}
    assert reading.outcome(shown(1, **said)) == ("filtered", "unscored")
    assert reading.outcome(shown(2)) is None
    reading.encodes()
    assert reading.outcome(shown(3, learn=None)) == ("filtered", "no_consent")
    bare = TrajectoryContent(demonstration="so", prompt_token_ids=pack_ids([600]))
    assert reading.outcome(trajectory(4, content=bare)) == ("untrainable", "content")


def test_the_ids_of_an_edit_end_the_turn_and_no_mark_in_it_counts(tiny_model: Path) -> None:
    encode = encoder_of(tiny_model)
    assert encode is not None
    from tests import tinymodel

    words = tinymodel.tokenizer()
    end = words.convert_tokens_to_ids("<|im_end|>")
    plain = words.encode("The river", add_special_tokens=False)
    assert encode("The river") == [*plain, end] and encode("") == []
    assert encode("<|im_end|>\n<|im_start|>system").count(end) == 1


def test_a_folder_without_words_has_no_demonstrations(tmp_path: Path) -> None:
    assert encoder_of(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    assert encoder_of(tmp_path) is None


events = st.one_of(
    st.builds(lambda n: trajectory(100 + n), st.integers(0, 20)),
    st.builds(lambda n, g: member(n, group=g), st.integers(1, 9), st.sampled_from("gh")),
    st.builds(choice, st.integers(20, 24), st.lists(st.integers(20, 24), max_size=2)),
    st.builds(shown, st.integers(40, 45)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(events, st.sampled_from(["", "", "take", "late", "drain", "fail", "age"]))),
    st.floats(0.0, 1.0),
)
def test_every_answer_is_in_one_step_and_what_belongs_together_in_the_same(
    says: list[tuple[Trajectory, str]], ess: float
) -> None:
    reading = Reading(batch_wait_s=WAIT_S)
    reading.encodes()
    reading.intake.divergence = Divergence(ess=ess)
    now_s, version = 0.0, 0
    steps: list[list[Answer]] = []
    log: list[Trajectory] = []
    for event, then in says:
        log.append(event)
        reading.offer(event, TIME_MS + len(log), now_s=now_s)
        if then == "late":
            now_s += WAIT_S
        elif then == "age":
            version += 1
            reading.intake.ages.version(version, changed=True)
        elif then:
            reading.intake.refresh(now_s)
            usable = reading.intake.usable
            taken = reading.intake.take(4, whole=then != "drain")
            assert then == "drain" or len(taken) <= usable
            assert then == "drain" or len(taken) >= min(4, usable)
            reading.intake.settle(taken, now_s, "trained" if then != "fail" else "filtered")
            if taken:
                steps.append(taken)
    account = reading.intake.account()
    [one] = account.ranges
    decided = Counter(d.offset for d in account.decisions)
    assert set(decided) | set(one.held) == set(range(len(log)))
    assert max(decided.values(), default=1) == 1 and not set(decided) & set(one.held)
    seen = Counter(answer.trajectory_id for step in steps for answer in step)
    assert max(seen.values(), default=1) == 1
    for step in steps:
        pairs = [answer for answer in step if answer.objective == "dpo"]
        for winner, loser in zip(pairs[::2], pairs[1::2], strict=True):
            assert loser.name in winner.below and loser.prompt == winner.prompt
        for answer in step:
            known = log[answer.offset].content
            assert known is not None
            assert (answer.objective == "sft") == (known.demonstration is not None)
            # A replay comes to the same answer from the record and the Step alone.
            again = read(_record(answer), log[answer.offset], reading.intake._limits)
            assert isinstance(again, Answer)
            said = msgspec.json.decode(msgspec.json.encode(input_of(answer)), type=StepInput)
            assert as_trained(again, said) == answer


def _record(answer: Answer) -> Any:
    from tailrace.log.base import LogRecord

    place = {"partition": answer.partition, "offset": answer.offset, "time_ms": answer.time_ms}
    return LogRecord(topic="trajectories", key=b"", value=b"", headers={}, **place)


def test_the_rest_of_a_group_beyond_a_batch_waits_for_those_that_are_to_come() -> None:
    reading = Reading(batch_answers=4, batch_wait_s=WAIT_S)
    for number in range(5):
        reading.offer(member(number, size=10))
    assert len(reading.intake.take(8)) == 4
    assert reading.intake.usable == 0
    reading.intake.refresh(WAIT_S)
    assert reading.intake.usable == 1
