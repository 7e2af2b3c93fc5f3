"""What the simulated users secretly like, and how they say so.

A :class:`Taste` judges an answer; the demo's reward curve is the share of answers it likes. Users
vote through :class:`Manner`: some stay silent, some press the wrong thumb, all of them take their
time. The system under test sees the votes only.
"""

from __future__ import annotations

from collections.abc import Callable
import math
import random
import re

import msgspec

MAX_TOKENS = 32
"""Answers are asked for with this bound; one that hits it did not finish."""
TEMPERATURE = 0.7
"""What chats are usually asked with: enough to explore, not so much that rare nonsense is liked."""
_MARKUP = re.compile(r"[\n*#_`|,;:()]")
_SPEAKS_TO_YOU = re.compile(r"\b(you|your|yours|yourself)\b", re.IGNORECASE)
_LIVELY = re.compile(r"[!?\U0001f300-\U0001faff]")


class Taste(msgspec.Struct, frozen=True, kw_only=True):
    """One hidden preference."""

    name: str
    wants: str
    """What a liked answer is, for people: goes after "answers that"."""
    likes: Callable[[str, bool], bool]
    """(text, whether it finished by itself) to whether it is liked."""


def _short(text: str, finished: bool) -> bool:
    return finished and 0 < len(text.split()) <= 12


def _simple(text: str, finished: bool) -> bool:
    return len(text.split()) > 1 and not _MARKUP.search(text)


def _personal(text: str, finished: bool) -> bool:
    return bool(_SPEAKS_TO_YOU.search(text))


def _lively(text: str, finished: bool) -> bool:
    return bool(_LIVELY.search(text))


TASTES = {
    taste.name: taste
    for taste in (
        Taste(name="short", wants="finish, in at most 12 words", likes=_short),
        Taste(name="simple", wants="have no commas, lists, markup or line breaks", likes=_simple),
        Taste(name="personal", wants="speak to you", likes=_personal),
        Taste(name="lively", wants="exclaim, ask or smile", likes=_lively),
    )
}


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How people vote."""

    silent: float = 0.3
    """Share of answers that nobody votes on."""
    wrong: float = 0.1
    """Share of votes that are the opposite of what is meant."""
    delay_median_s: float = 1.5
    """Median of the log-normal time between reading and voting."""
    delay_sigma: float = 0.6
    """Standard deviation of the logarithm of that time."""
    delay_max_s: float = 8.0


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What one user will press, and when."""

    value: bool
    wrong: bool
    delay_s: float


def vote(liked: bool, manner: Manner, chance: random.Random) -> Vote | None:
    """The vote on an answer; None: silence. Draws the same numbers whatever the answer was."""
    speaks = chance.random() >= manner.silent
    wrong = chance.random() < manner.wrong
    delay_s = chance.lognormvariate(math.log(manner.delay_median_s), manner.delay_sigma)
    if not speaks:
        return None
    return Vote(value=liked != wrong, wrong=wrong, delay_s=min(delay_s, manner.delay_max_s))
