"""Random feedback bodies: documents of the table, mutated; a seed gives the same ones again."""

from __future__ import annotations

from collections.abc import Iterator
import json
import random
from typing import Any

TURN = "acme:chat~01HF7YAT00000"
_KEYS = (
    "metric_name value kind preferred_over inference_id episode_id feedback_id choice tags replaces"
    " action source grader user event_time_ms surplus"
).split()
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**53, 2**63, 2**64, 10**400, float("nan"),
    float("inf"), "", "0", "1", "128", "thumbs", "comment", "demonstration", "preference", "number",
    "boolean", "set", "retract", "user", "grader", "x" * 200, "x" * 100_000, "\x00", "\ud800", "😀",
    "a b", TURN, f"{TURN}/1", f"{TURN}!f", f"{TURN}!f!g", "acme:chat", "acme:other",
    "other:chat~01HF7YAT00000", "acme:chat~ZZZZZZZZZZZZZ", "acme:chat~0000000000000", "acme:chat~",
    ":", "~", "!", [], [1], {}, {"a": "b"}, {"a": 1}, {"": ""},
]  # fmt: skip


def bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` bodies: some right, most wrong in one place, some in many, some no JSON."""
    chance = random.Random(seed)
    for _ in range(count):
        document: Any = {
            "metric_name": chance.choice(["thumbs", "comment", "stars"]),
            "value": chance.choice([True, 4, "text"]),
            "inference_id": TURN,
            "feedback_id": f"f{chance.randrange(100)}",
        }
        for _ in range(chance.choice([0, 1, 1, 2, 5])):
            document[chance.choice(_KEYS)] = chance.choice(_VALUES)
        for _ in range(chance.choice([0, 0, 1])):
            document.pop(chance.choice(_KEYS), None)
        if chance.random() < 0.05:
            document = chance.choice([[document], chance.choice(_VALUES), _nested(chance)])
        body = json.dumps(document, ensure_ascii=chance.random() < 0.8)
        raw = bytearray(body.encode("utf-8", "surrogatepass"))
        for _ in range(chance.choice([0, 0, 0, 1, 3]) if raw else 0):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        yield bytes(raw[: chance.randrange(len(raw) + 1)] if chance.random() < 0.05 else raw)


def _nested(chance: random.Random) -> Any:
    found: Any = chance.choice(_VALUES[:10])
    for _ in range(chance.choice([3, 300])):
        found = [found] if chance.random() < 0.5 else {"value": found}
    return found
