"""How many requests of ours an engine may have. Pure.

vLLM counts all requests alike. Ours are subtracted only where it must have counted them: those that
were in flight since :data:`SETTLED_MS` before it was asked, and still are. What is left is live
traffic, rather too much than too little: a request of ours that it has just got, or has just done
with, passes for a live one until the next reading.
"""

from __future__ import annotations

from collections.abc import Iterable
import math

import msgspec

SETTLED_MS = 1_000
"""A request that is older has been seen by the engine's scheduler."""
_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_BETWEEN = "vllm:inter_token_latency_seconds"


class Load(msgspec.Struct, frozen=True):
    """How busy one vLLM is, by its own count."""

    running: int
    waiting: int
    tokens: int = 0
    """Made since its start, but for the first of each answer."""
    tokens_s: float = 0.0
    """What these took from the one before, together."""


def load_of(text: str) -> Load | None:
    """What vLLM's metrics say, over all its ranks; None where they do not.

    >>> load_of('vllm:num_requests_running{engine="0"} 3.0\\nvllm:num_requests_waiting{} 1.0')
    Load(running=3, waiting=1, tokens=0, tokens_s=0.0)
    """
    lines = text.splitlines()
    running, waiting = _sum(lines, _RUNNING), _sum(lines, _WAITING)
    if running is None or waiting is None:
        return None
    tokens, tokens_s = _sum(lines, f"{_BETWEEN}_count"), _sum(lines, f"{_BETWEEN}_sum")
    return Load(int(running), int(waiting), int(tokens or 0), tokens_s or 0.0)


def allowed(load: Load, settled: int, *, share: float, slots: int) -> int:
    """How many of ours may be in flight: ``share`` of the slots that live traffic leaves; none
    more while anything waits. ``settled``: ours that vLLM counts."""
    if load.waiting:
        return 0
    live = max(0, load.running - settled)
    # The product may be a hair below what was meant: 0.1 of 30 slots are three.
    return int(share * max(0, slots - live) + 1e-9)


def _sum(lines: Iterable[str], name: str) -> float | None:
    """Over all ranks; None where there is none, or one that is no number."""
    found = None
    for line in lines:
        if line.startswith((f"{name}{{", f"{name} ")):
            try:
                found = (found or 0.0) + float(line.rpartition(" ")[2])
            except ValueError:
                return None
    return found if found is None or math.isfinite(found) else None
