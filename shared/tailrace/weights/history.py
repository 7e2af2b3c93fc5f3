"""Which manifests are a model's history, for who signs them or holds their account against the log.

In: all manifests of one model in log order, and which of them a known key signed. Out: those that
count. What is signed counts, and what the first signed one descends from: it names its base by
number and digest, so it vouches for that base, that for its own, and so on back, whoever wrote
them; nothing can be put before it on the log any more. Nothing else without a signature counts.
Where nothing is signed yet, a person has to say up to where the history is the right one.

Pure. Called by :mod:`.publisher` and :mod:`tailrace.audit`. Readers are stricter: they take what is
signed and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.events import ModelUpdate


class Written(NamedTuple):
    """A manifest, and whether a known key signed it."""

    update: ModelUpdate
    signed: bool


def history(written: Sequence[Written], unsigned_to: int | None = None) -> list[ModelUpdate]:
    """The manifests that count, in log order.

    ``unsigned_to``: where none is signed, the newest version up to this one, and what it descends
    from, count. None, or a number below all: none does.
    """
    first = next((n for n, each in enumerate(written) if each.signed), len(written))
    before: dict[tuple[int | None, str | None], ModelUpdate] = {}
    numbers: dict[int, ModelUpdate] = {}
    for update, _ in written[:first]:
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
    return found[::-1] + [update for update, signed in written[first:] if signed]
