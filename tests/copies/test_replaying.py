"""A stretch written again: what rewards make of it, counts, pace, going on after a broken run."""

from __future__ import annotations

import random

import pytest

from tailrace.errors import LogError
from tailrace.log.memory import MemoryProducer
from tailrace.replaying.plan import found
from tailrace.replaying.replayer import Replayer
from tests.copies.past import hole, lay, replayed, rewarded, trajectories, values
from tests.rewards.history import KINDS, START_MS
from tests.rewards.test_join import SPEC, Story
from tests.rewards.test_join_properties import SPECS, make


@pytest.mark.parametrize("seed", range(12))
def test_rewards_make_the_same_of_every_replay(seed: int) -> None:
    history = make(seed, random.Random(seed).randint(5, 90))
    spec = SPECS[seed % len(SPECS)]
    log = lay(history)
    for prefix in ("one.", "two."):
        done = replayed(log, "", prefix).run()
        assert done.records == {k: sum(i is not None for i in history.logs[k]) for k in KINDS}
    first, second = (rewarded(log, spec, prefix, copy=True) for prefix in ("one.", "two."))
    assert first == second
    assert trajectories(first) == trajectories(rewarded(log, spec, "", copy=False))


@pytest.mark.parametrize("seed", range(6))
def test_a_replay_that_breaks_off_goes_on_to_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = make(seed, 60)
    log = lay(history)
    words = {"filters": ["session=default:s*"]} if seed % 2 else {}
    whole = replayed(log, "", "whole.", **words).run()
    append, left = MemoryProducer.append, [0]

    def fails(self, topic, *given, **more):  # type: ignore[no-untyped-def]
        left[0] -= topic.startswith("broken.")
        if left[0] < 0:
            raise LogError("the broker went away")
        return append(self, topic, *given, **more)

    chance = random.Random(seed)
    left[0] = 10**6
    replayer = replayed(log, "", "broken.", **words)
    monkeypatch.setattr(MemoryProducer, "append", fails)
    breaks = 0
    for _ in range(1000):
        left[0] = chance.randint(0, 25)
        try:
            done = replayer.run()
            break
        except LogError:
            breaks += 1
            plan = found(log, "broken.")[0]
            assert plan is not None
            replayer = Replayer(log, plan, "broken.")
    assert breaks and done == whole
    for kind in KINDS:
        assert values(log, f"broken.{kind}") == values(log, f"whole.{kind}")
    assert found(log, "broken.")[1] == done


def test_a_stretch_takes_what_was_appended_within_it() -> None:
    story = Story()
    for _ in range(10):
        story.feedback(story.turn(), "a")
        story.run(1)
    log = lay(story)
    done = replayed(log, "", "part.", since=START_MS + 2000, until=START_MS + 5000).run()
    assert done.records == {"prompts": 3, "outputs": 3, "feedback": 3, "ticks": 3}
    last = values(log, "part.ticks")[-1]
    assert int(last[3]["tailrace-time-ms"]) == START_MS + 4000
    sources = [headers["tailrace-source"] for *_, headers in values(log, "part.prompts")]
    assert sources == [b"prompts/0/2", b"prompts/0/3", b"prompts/0/4"]
    one = replayed(log, "", "place.", places=["outputs/0/8"]).run()
    assert one.records == {"prompts": 2, "outputs": 2, "feedback": 2, "ticks": 3}


def test_a_replay_of_a_replay_is_in_original_time() -> None:
    story = Story()
    for _ in range(10):
        story.feedback(story.turn(), "a")
        story.run(1)
    story.run(20)
    log = lay(story)
    log._clock_ms = lambda: START_MS + 10**8
    replayed(log, "", "one.").run()
    replayed(log, "one.", "two.").run()
    first, second = (rewarded(log, SPEC, prefix, copy=True) for prefix in ("one.", "two."))
    assert first == second and len(trajectories(first)) == 10
    done = replayed(log, "one.", "part.", since=START_MS + 2000, until=START_MS + 5000).run()
    assert done.records == {"prompts": 3, "outputs": 3, "feedback": 3, "ticks": 3}


def test_a_filter_takes_whole_sessions_and_ticks_fit_what_is_left() -> None:
    story = Story()
    for number in range(12):
        story.feedback(story.turn(f"default:s{number % 3}"), "a", boolean=number % 2 == 0)
        story.run(1)
    story.run(40)
    log = lay(story)
    hole(log, "prompts")
    done = replayed(log, "", "some.", filters=["session=default:s1"]).run()
    assert (done.records["prompts"], done.left_out["prompts"]) == (4, 8)
    assert done.records["ticks"] == len(story.logs["ticks"])
    whole = trajectories(rewarded(log, SPEC, "", copy=False))
    some = trajectories(rewarded(log, SPEC, "some.", copy=True))
    assert some == [one for one in whole if b"default:s1~" in one] and len(some) == 4
