"""Prompts in memory: no more of them than said, and none dropped that an open answer needs."""

from __future__ import annotations

from services.graders.pairing import KEEP_MS, WAIT_MS, Pairing
from tailrace import events
from tailrace.log.base import LogRecord


def record(offset: int, time_ms: int = 0, partition: int = 0) -> LogRecord:
    return LogRecord(
        topic="prompts",
        partition=partition,
        offset=offset,
        time_ms=time_ms,
        key=None,
        value=b"x" * 10_000,
        headers={},
    )


def prompt(name: str, learn: bool = True, size: int = 2) -> events.Prompt:
    content = events.PromptContent(messages="x" * size, prompt_token_ids=b"1234" * 1000)
    return events.Prompt(
        interaction_id=name, session_id="s", event_time_ms=0, learn=learn, content=content
    )


def output(name: str, size: int = 2) -> events.Output:
    content = events.OutputContent(message="x" * size, logprobs=b"1234" * 1000)
    return events.Output(interaction_id=name, event_time_ms=0, content=content)


def found(pairing: Pairing, name: str, partition: int = 0) -> bool:
    return pairing.prompt_of(record(10**6, partition=partition), output(name), 0) is not None


def test_the_oldest_goes_first_over_all_partitions() -> None:
    pairing = Pairing(max_prompts=2)
    pairing.take_prompt(record(0, time_ms=2, partition=0), prompt("b"))
    pairing.take_prompt(record(0, time_ms=1, partition=1), prompt("a"))
    pairing.take_prompt(record(1, time_ms=3, partition=0), prompt("c"))
    assert [found(pairing, n, p) for n, p in (("a", 1), ("b", 0), ("c", 0))] == [False, True, True]


def test_bytes_are_bounded_too() -> None:
    pairing = Pairing(max_prompt_bytes=10_000)
    for offset in range(5):
        pairing.take_prompt(record(offset, offset), prompt(str(offset), size=4000))
    assert [found(pairing, str(n)) for n in range(5)] == [False, False, False, True, True]
    pairing.take_prompt(record(9, 9), prompt("large", size=100_000))
    assert found(pairing, "large")
    pairing = Pairing(max_waiting_bytes=10_000)
    for offset in range(2):
        pairing.prompt_of(record(offset), output(f"o{offset}", size=4000), 0)
    assert 0.8 < pairing.load < 1
    pairing.prompt_of(record(2), output("o2", size=4000), 0)
    assert pairing.load > 1
    pairing.take_prompt(record(10), prompt("o1"))
    assert [*pairing.give_up(WAIT_MS, {0})] and pairing.load == 0


def test_a_prompt_is_kept_for_a_while_behind_the_oldest_open_answer() -> None:
    pairing = Pairing()
    for offset in range(3):
        pairing.take_prompt(record(offset, time_ms=offset), prompt(str(offset)))
    pairing.forget_prompts(0, KEEP_MS + 1)
    assert pairing.needed_from(0) == 1
    pairing.forget_prompts(0, KEEP_MS + 10)
    assert pairing.needed_from(0) is None
    pairing.forget_prompts(1, KEEP_MS)


def test_what_nobody_may_train_on_is_not_kept() -> None:
    pairing = Pairing()
    pairing.take_prompt(record(0), prompt("mine", learn=False))
    kept = pairing.prompt_of(record(1), output("mine"), 0)
    assert kept is not None and kept.content is None


def test_outputs_wait_so_long_and_say_how_many_they_are() -> None:
    pairing = Pairing(max_waiting=10)
    for offset in range(10):
        assert pairing.load == pairing.waiting / 10 == offset / 10
        assert pairing.prompt_of(record(offset), output(str(offset)), offset) is None
    assert pairing.load == 1
    assert not [*pairing.give_up(WAIT_MS - 1, {0})], "nothing is dropped for want of room"
    assert not pairing.overdue(WAIT_MS - 1) and pairing.overdue(WAIT_MS)
    assert not [*pairing.give_up(WAIT_MS + 3, {1})], "its prompts are not all read"
    late = [waiting.record.offset for waiting in pairing.give_up(WAIT_MS + 3, {0})]
    assert late == [0, 1, 2, 3]
    assert pairing.load == 0.6
    (waiting,) = pairing.take_prompt(record(0), prompt("4"))
    assert waiting.record.offset == 4
    assert not pairing.take_prompt(record(1), prompt("3"))


def test_both_choices_wait_for_one_prompt() -> None:
    pairing = Pairing()
    for offset in (7, 8):
        pairing.prompt_of(record(offset), output("one"), 0)
    offsets = [waiting.record.offset for waiting in pairing.take_prompt(record(0), prompt("one"))]
    assert offsets == [7, 8]
    assert not [*pairing.give_up(WAIT_MS, {0})]
