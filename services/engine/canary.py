"""The canary of a version: a fixed continuation, scored by vLLM after a swap, as by the trainer.

In: the manifest and the admin API. Out: whether vLLM holds other weights than were published, and
what to say about it. It finds what a label cannot: a layer that kept its old weights. Not to be
asked while an answer with an adapter runs: vLLM 0.32 scores a prompt with that adapter's tables for
the sampled tokens, and ends.
Called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.engine.admin import Admin, Trouble, Unanswered
from tailrace.events import ModelUpdate
from tailrace.packing import unpack_ids, unpack_logprobs


def check(admin: Admin, update: ModelUpdate | None, tolerance: float) -> tuple[bool, str | None]:
    """(is it wrong, what to say). Not wrong where there is no canary or vLLM does not score it."""
    canary = update.canary if update else None
    if canary is None or not canary.output_tokens or not canary.logprobs:
        return False, None
    try:
        prompt = unpack_ids(canary.prompt_tokens or b"")
        output, expected = unpack_ids(canary.output_tokens), unpack_logprobs(canary.logprobs)
    except ValueError as error:  # the manifest's fault, not the weights'
        return False, f"canary: unreadable, {error}"
    tokens = [*map(int, prompt), *map(int, output)]
    try:
        found = admin.score(tokens)[-len(output) :]
    except Unanswered:
        return False, "canary: unknown, no answer in time"
    except Trouble as error:
        return False, f"canary: unknown, {error}"
    difference = differs([float(x) for x in expected], found, tolerance)
    return difference is not None, difference


def differs(expected: Sequence[float], found: Sequence[float], tolerance: float) -> str | None:
    """Compare canary logprobs. None: they agree; else what is wrong.

    They agree when the mean absolute difference is at most ``tolerance`` nats per token: trainer
    and vLLM round bf16 differently, which moves the mean by some hundredths (0.04 to 0.06 seen),
    while noise of 5 % on the weights moves it by 0.46.
    """
    if len(expected) != len(found) or not expected:
        return f"{len(found)} logprobs, {len(expected)} expected"
    mean = sum(abs(a - b) for a, b in zip(expected, found, strict=True)) / len(expected)
    if not mean <= tolerance:  # a NaN is no agreement
        return f"mean difference {mean:.4f} nats, more than {tolerance}"
    return None
