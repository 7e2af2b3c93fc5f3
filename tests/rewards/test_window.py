"""What the number of records lets a partition keep: who is evicted, and what they are told."""

from __future__ import annotations

from msgspec.structs import replace
import pytest

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tests.rewards.history import Reader, Result, interaction_of, read_in_order
from tests.rewards.test_expiry import everything
from tests.rewards.test_join import Story, rewards
from tests.rewards.test_kinds import prefer

SMALL = Spec(
    wait_s=60,
    orphan_s=60,
    horizon_s=24 * 3600,
    max_records=4,
    metrics={"thumbs": Metric(false=-1.0), "better": Metric()},
)


def reasons(result: Result) -> dict[int, tuple[str, bool]]:
    """Of each feedback its outcome, and whether it was evicted."""
    receipts = {offset: next(iter(values)) for offset, values in result.receipts.items()}
    outcomes = result.outcomes()
    return {offset: (outcomes[offset], b"evicted" in receipts[offset]) for offset in outcomes}


def ended(story: Story, spec: Spec = SMALL) -> Reader:
    """A worker that read it all, with time for every wait."""
    story.run(2)
    story.wait(130)
    story.run(3)
    return read_in_order(story, spec)


def crowd(story: Story, number: int = 4) -> list[str]:
    """So many turns that what lies before them is evicted, and the tick that does it."""
    story.wait(1)
    turns = []
    for _ in range(number):
        story.wait(0.01)
        turns.append(story.turn(session="default:other"))
    story.run(2)
    return turns


def test_an_open_answer_closes_when_it_is_evicted() -> None:
    story = Story()
    old = story.turn()
    said = story.feedback(old, "a")
    crowd(story)
    at_ms = story.now_ms
    result = read_in_order(story, SMALL).result
    (one,) = result.revisions()
    assert (one.interaction_id, one.reward, one.feedback_ids) == (old, 1.0, [f"{old}!a"])
    assert one.closed_log_time_ms is not None and one.closed_log_time_ms < at_ms
    assert reasons(result) == {said: ("joined", False)}


def test_an_evicted_answer_is_not_corrected_and_says_so() -> None:
    story = Story()
    old = story.turn()
    crowd(story)
    late = story.feedback(old, "late", boolean=False)
    story.run(2)
    result = read_in_order(story, SMALL).result
    assert rewards(result) == [(0, None)]
    assert reasons(result) == {late: ("late", True)}


def test_what_is_no_answer_s_yet_is_late_and_not_an_orphan() -> None:
    story = Story()
    nobody = interaction_of("default:s", story.now_ms, 9)
    before = story.feedback(nobody, "before")
    session = story.feedback("default:empty", "session")
    crowd(story)
    after = story.feedback(nobody, "after")
    for number in range(5):
        story.feedback(crowd(story, 1)[0], str(number))
    result = read_in_order(story, SMALL).result
    given = {offset: reasons(result)[offset] for offset in (before, session, after)}
    assert given == dict.fromkeys((before, session, after), ("late", True))


def test_prompts_and_outputs_alone_are_counted() -> None:
    story = Story()
    prompt, output, unborn = (interaction_of("default:s", story.now_ms, n) for n in (1, 2, 3))
    story.prompt(prompt)
    story.output(output)
    crowd(story)
    story.prompt(output)  # its other half, too late
    story.output(prompt)
    story.prompt(unborn)
    story.output(unborn)
    story.run(2)
    reader = read_in_order(story, SMALL)
    assert all(one.interaction_id.startswith("default:other") for one in reader.result.revisions())
    assert reader.join.counts == {("prompts", "evicted"): 3, ("outputs", "evicted"): 3}


def test_a_repetition_opens_nothing_anew() -> None:
    story = Story()
    old = story.turn()
    crowd(story)
    reader = Reader(story, SMALL)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(everything)
    for _ in range(3):
        story.wait(1)
        story.tick()
        reader.step("ticks")
        reader.commit(everything)
    assert b"0/prompts/0" not in reader.table.values
    assert old not in str(reader.join._memory.sessions)
    story.prompt(old)
    story.output(old)
    story.feedback(old, "a")
    story.run(2)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(everything)
    assert [t.revision for t in reader.result.revisions() if t.interaction_id == old] == [0]
    assert reasons(reader.result) == {0: ("late", True)}
    assert reader.join.counts["prompts", "evicted"] == reader.join.counts["outputs", "evicted"] == 1


def test_many_words_evict_as_many_answers_do() -> None:
    story = Story()
    old = story.turn()
    story.wait(1)
    young = story.turn()
    said = [story.feedback(old, str(number)) for number in range(9)]
    story.run(2)
    late = story.feedback(old, "late")
    result = ended(story).result
    assert [t.interaction_id for t in result.revisions()] == [old, young]
    assert reasons(result) == dict.fromkeys(said, ("joined", False)) | {late: ("late", True)}


def test_an_id_is_remembered_for_so_many_records() -> None:
    story = Story()
    turn = story.turn()
    story.feedback(turn, "a")
    for number in range(3):
        story.feedback(turn, str(number))
    near = story.feedback(turn, "a")
    story.run(2)
    far = story.feedback(turn, "a", boolean=False)
    taken = story.feedback(turn, "no", action="retract", replaces=f"{turn}!0")
    outcomes = ended(story).result.outcomes()
    assert (outcomes[near], outcomes[far], outcomes[taken]) == ("duplicate", "late", "no_target")


def test_a_preference_has_its_outcome_when_the_first_of_its_answers_is_evicted() -> None:
    story = Story()
    worse = story.turn()
    story.wait(1)
    better = interaction_of("default:s", story.now_ms + 1500, 7)
    said = prefer(story, better, "a", worse)
    crowd(story)
    story.prompt(better)
    story.output(better)
    result = ended(story, replace(SMALL, max_records=5)).result
    given = {t.interaction_id: t.feedback_ids for t in result.revisions()}
    assert (given[worse], given[better]) == ([f"{better}!a"], [])
    assert result.outcomes()[said] == "joined"


def test_a_clock_that_is_ahead_evicts_no_others() -> None:
    story = Story()
    ahead = interaction_of("default:s", story.now_ms + 3_600_000, 1)
    story.prompt(ahead)
    story.output(ahead)
    young = crowd(story, 4)
    said = [story.feedback(turn, "a") for turn in (ahead, *young[-2:])]
    result = ended(story).result
    assert reasons(result) == dict.fromkeys(said, ("joined", False))


@pytest.mark.parametrize("words", [0, 1, 6])
def test_the_state_is_bounded_at_any_rate(words: int) -> None:
    spec = replace(SMALL, max_records=20)
    story = Story()
    reader = Reader(story, spec)
    sizes = []
    for number in range(60):
        for _ in range(3):
            turn = story.turn(session=f"default:s{number % 5}")
            for word in range(words):
                story.feedback(turn, str(word))
        story.run(1)
        for kind in ("prompts", "outputs", "feedback", "ticks"):
            while kind in reader.readable():
                reader.step(kind)
        reader.commit(everything)
        memory = reader.join._memory
        turns = sum(len(session.interactions) for session in memory.sessions.values())
        window = memory.retention.window
        facts = sum(map(len, (window._ripe, window._turns, *window._facts.values())))
        heard = len(memory.account.by_offset)
        sizes.append((len(reader.table.values), turns, heard, len(memory.unsettled), facts))
    halves = sizes[:30], sizes[30:]
    early, late = ([max(size) for size in zip(*half, strict=True)] for half in halves)
    assert all(late[at] <= early[at] + 6 for at in range(5)), (early, late)
    assert early[0] < 6 * 20


def test_nothing_is_scheduled_for_who_is_gone() -> None:
    spec = replace(SMALL, max_records=20, orphan_s=23 * 3600)
    story = Story()
    for _ in range(40):
        story.wait(1)
        for _ in range(50):
            story.feedback(story.turn(), "a")
        story.tick()
    reader = Reader(story, spec)
    items = [(i.record.time_ms, i.record.topic) for log in story.logs.values() for i in log if i]
    for _, kind in sorted(items, key=lambda item: item[0]):
        reader.step(kind)
        reader.commit(everything)
    memory = reader.join._memory
    assert max(len(memory._due), len(memory.retention._expiry)) < 2000
