"""Which two answers are held against each other: a chosen one and a rejected one.

In: all trajectories twice. :meth:`Pairs.see` takes what pairs are made by, :meth:`Pairs.rows` the
texts of those that are in one. Pure; every answer seen is in memory without its texts, those of
a pair with them.

By what a pair is made:

``demonstration``   what a person wrote in place of an answer, and that answer
``preference``      somebody said that one answer is better than another
``reward``          the best and the worst of the answers to one prompt: the choices of an
                    interaction, or the interactions of a group
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from tailrace import ids
from tailrace.events import Trajectory, TrajectoryContent
from tailrace.export import texts
from tailrace.export.choice import Choice
from tailrace.export.layouts import Row
from tailrace.export.texts import Unfit


class Seen(msgspec.Struct, frozen=True):
    """An answer, as far as pairs are made by it."""

    trajectory_id: str
    reward: float | None
    group: str
    over: tuple[str, ...]
    demonstrated: bool


class Pairs:
    """Pairs among what was seen, for one export."""

    def __init__(self, choice: Choice, margin: float) -> None:
        """``margin``: by how much the rewards of a pair must differ, where it is by reward."""
        self._choice, self._margin = choice, margin
        self._seen: dict[str, Seen] = {}
        self._revisions: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()

    def see(self, one: Trajectory) -> None:
        """A trajectory that the choice takes: a later revision replaces it."""
        if not self._newest(one):
            return
        group = one.interaction_id
        if one.group_id is not None:  # of its session, as trainers take it
            group = f"{one.interaction_id.rpartition('~')[0]} {one.group_id}"
        self._seen[ids.answer(one.interaction_id, one.choice)] = Seen(
            one.trajectory_id,
            one.reward,
            group,
            tuple(one.preferred_over),
            bool(one.content and one.content.demonstration is not None),
        )

    def forget(self, one: Trajectory) -> None:
        """A revision that the choice refuses: what it replaces counts no more."""
        if self._newest(one):
            self._seen.pop(ids.answer(one.interaction_id, one.choice), None)

    def _newest(self, one: Trajectory) -> bool:
        """Whether no later revision came yet: after a crash an older one may come again."""
        name = ids.answer(one.interaction_id, one.choice)
        self._revisions[name] = max(one.revision, self._revisions.get(name, 0))
        return one.revision == self._revisions[name]

    def pairs(self) -> dict[tuple[str, str], str]:
        """Chosen and rejected answer, and by what; a demonstration is above the answer itself."""
        found: dict[tuple[str, str], str] = {}
        groups: dict[str, list[str]] = {}
        for name, seen in self._seen.items():
            if seen.demonstrated:
                found[name, name] = "demonstration"
            if seen.reward is not None:
                groups.setdefault(seen.group, []).append(name)
            for lost in seen.over:
                if lost in self._seen and not self._choice.refuses_reward(seen.reward):
                    found[name, lost] = "preference"
        for members in groups.values():
            best, worst = (
                pick(members, key=lambda name: self._reward(name)) for pick in (max, min)
            )
            above = self._reward(best) - self._reward(worst)
            refused = self._choice.refuses_reward(self._reward(best))
            said = (best, worst) in found or (worst, best) in found
            if above > 0 and above >= self._margin and not refused and not said:
                found[best, worst] = "reward"
        contradicted = {pair for pair in found if pair[0] != pair[1] and pair[::-1] in found}
        self.left_out["contradicted"] = len(contradicted)
        return {pair: by for pair, by in found.items() if pair not in contradicted}

    def _reward(self, name: str) -> float:
        reward = self._seen[name].reward
        assert reward is not None
        return reward

    def wanted(self, one: Trajectory) -> bool:
        """Whether this is the revision that counts of an answer."""
        seen = self._seen.get(ids.answer(one.interaction_id, one.choice))
        return seen is not None and seen.trajectory_id == one.trajectory_id


class Texts:
    """The texts of what is in a pair, and the rows that come of them."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._by = pairs.pairs()
        self._wanted = {name for pair in self._by for name in pair}
        self._found: dict[str, Trajectory] = {}
        self.left_out: Counter[str] = Counter()

    def take(self, one: Trajectory) -> None:
        """A trajectory, again."""
        name = ids.answer(one.interaction_id, one.choice)
        if name in self._wanted and self._pairs.wanted(one):
            self._found[name] = _slim(one)

    def rows(self) -> Iterator[Row]:
        """All pairs that are conversations of texts."""
        for (better, worse), by in self._by.items():
            try:
                yield self._row(self._found[better], self._found[worse], by)
            except KeyError:
                self.left_out["expired"] += 1
            except Unfit as error:
                self.left_out[str(error)] += 1

    def _row(self, better: Trajectory, worse: Trajectory, by: str) -> Row:
        prompt, rejected = texts.prompt(better), texts.answer(worse)
        if by == "demonstration":
            chosen = texts.demonstration(better)
        else:
            chosen = texts.answer(better)
            if prompt != texts.prompt(worse):
                raise Unfit("other_prompt")
            if better.untrainable is not None:
                raise Unfit("untrainable")
        if worse.untrainable is not None:
            raise Unfit("untrainable")
        if chosen == rejected:
            raise Unfit("same_text")
        both = None not in (better.reward, worse.reward) and by != "demonstration"
        return {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "reward_difference": better.reward - worse.reward if both else None,  # type: ignore[operator]
            "chosen_id": better.trajectory_id,
            "rejected_id": worse.trajectory_id,
            "by": by,
        }


def _slim(one: Trajectory) -> Trajectory:
    """What a row is made of: texts, and what says whether they may be."""
    content = one.content and TrajectoryContent(
        messages=one.content.messages,
        message=one.content.message,
        demonstration=one.content.demonstration,
    )
    return Trajectory(
        trajectory_id=one.trajectory_id,
        interaction_id=one.interaction_id,
        event_time_ms=one.event_time_ms,
        reward=one.reward,
        untrainable=one.untrainable,
        error=one.error,
        content=content,
    )
