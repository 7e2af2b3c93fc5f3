"""Which manifests are a model's history, for who signs them or holds their account against the log.

In: all manifests of one model in log order, and which of them a known key signed. Out: those that
count. What is signed counts, and what the first signed version, adapters aside, descends from: it
names its base by number and digest, so it vouches for that base, that for its own, and so on back,
whoever wrote them; nothing can be put before it on the log any more. Nothing else without a
signature counts. Where no version is signed yet, a person has to say up to where the history is the
right one.

Pure. Called by :mod:`.publisher` and :mod:`tailrace.audit`. Readers are stricter: they take what is
signed and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.events import ModelUpdate

FAR = 1_000_000
"""A version a second for eleven days."""


class Written(NamedTuple):
    """A manifest, and whether a known key signed it."""

    update: ModelUpdate
    signed: bool
    stranger: str | None = None
    """The key that is said to have signed it, where that is none that is known."""


def history(written: Sequence[Written], unsigned_to: int | None = None) -> list[ModelUpdate]:
    """The manifests that count, in log order.

    ``unsigned_to``: where no version is signed, the newest version up to this one, and what it
    descends from, count. None, or a number below all: none does.
    """
    first = next((n for n, each in enumerate(written) if begins(each)), len(written))
    before: dict[tuple[int | None, str | None], ModelUpdate] = {}
    numbers: dict[int, ModelUpdate] = {}
    for update in (each.update for each in written[:first]):
        if update.kind != "adapter":
            before.setdefault((update.version, update.digest), update)
            numbers.setdefault(update.version, update)
    at: ModelUpdate | None
    if first < len(written):
        at = before.get((written[first].update.base_version, written[first].update.base_digest))
    else:
        known = [v for v in numbers if unsigned_to is not None and v <= unsigned_to]
        at = numbers[max(known)] if known else None
    found: list[ModelUpdate] = []
    while at is not None and (not found or at.version < found[-1].version):
        found.append(at)
        at = before.get((at.base_version, at.base_digest))
    return found[::-1] + [each.update for each in written if each.signed]


def begins(each: Written) -> bool:
    """Whether a history may begin to be signed here. An adapter lies on a version, and says nothing
    of those after that."""
    return each.signed and each.update.kind != "adapter"


def stranger_after(written: Sequence[Written], unsigned_to: int) -> str | None:
    """Where nothing is signed by a known key: one of another that signed a version after
    ``unsigned_to``, and so began after a person said that; None: there is none.

    Not the key of the version that ``unsigned_to`` takes: who names a version that a key signed
    knows that key, and what else it signed. -1 takes none.
    """
    found = [update for update in history(written, unsigned_to) if update.kind != "adapter"]
    named = {each.stranger for each in written if found and each.update is found[-1]}
    strangers = (each.stranger for each in written if each.update.version > unsigned_to)
    return next((key for key in strangers if key is not None and key not in named), None)


def next_version(written: Sequence[Written], found: Sequence[ModelUpdate]) -> int:
    """The number after the newest that was used, whoever used it: none is used twice.

    ``found`` are those that count. A number that is :data:`FAR` beyond them was not used for
    training: somebody wants to be in the way.
    """
    newest = max((update.version for update in found), default=-1)
    used = (each.update.version for each in written)
    return max([newest, *(version for version in used if version <= newest + FAR)]) + 1
