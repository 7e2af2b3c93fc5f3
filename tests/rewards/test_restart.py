"""What a worker that takes a partition up knows and counts is what its predecessor did."""

from __future__ import annotations

from msgspec.structs import replace

from tests.rewards.history import Reader, interaction_of
from tests.rewards.test_expiry import everything
from tests.rewards.test_join import Story
from tests.rewards.test_kinds import prefer
from tests.rewards.test_window import SMALL, crowd


def read(reader: Reader) -> None:
    """All there is, and commit it."""
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(everything)


def test_what_was_evicted_before_an_assignment_is_not_counted_after_it() -> None:
    story = Story()
    prompt, output = (interaction_of("default:s", story.now_ms, number) for number in (1, 2))
    crowd(story, 5)
    story.prompt(prompt)  # read before the ticks that evict their turns, and of no concern to them
    story.output(output)
    reader = Reader(story, SMALL)
    read(reader)
    assert reader.join.counts == {("prompts", "evicted"): 1, ("outputs", "evicted"): 1}
    assert {b"0/prompts/5", b"0/outputs/5"} <= reader.table.values.keys()
    reader.assign()
    story.run(1)
    read(reader)
    assert not +reader.join.counts


def test_what_a_word_replaced_may_be_gone_and_it_knows_its_time() -> None:
    spec = replace(SMALL, max_records=2)
    story = Story()
    old = story.turn()
    ahead = interaction_of("default:s", story.now_ms + 1000, 7)
    prefer(story, old, "a", ahead)
    story.feedback(old, "b", replaces=f"{old}!a")
    reader = Reader(story, spec)
    read(reader)
    known = reader.join._memory.account.by_offset[1].newest_ms
    assert known == story.now_ms + 1000
    story.wait(1)
    story.feedback(crowd(story, 4)[-1], "c")
    for _ in range(4):
        read(reader)
        story.run(1)
    assert b"0/feedback/0" not in reader.table.values
    reader.assign()
    assert reader.join._memory.account.by_offset[1].newest_ms == known
