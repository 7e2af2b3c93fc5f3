"""What a reward is made of, as the spec's tables say it: metrics, signals, verifiers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Metric(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A term of the reward that feedback makes."""

    weight: float = 1.0
    aggregate: Literal["last", "mean", "min", "max", "sum"] = "last"
    final: bool = False
    wait_s: float | None = None
    true: float = 1.0
    false: float = 0.0
    categories: dict[str, float] = {}
    text: float | None = None
    preferred: float = 1.0
    rejected: float = 0.0
    range: tuple[float, float] | None = None
    to: tuple[float, float] = (0.0, 1.0)
    session: Literal["last", "equal", "discounted"] = "equal"
    discount: float = 0.9


class Implicit(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A term of the reward that the session's next prompts make."""

    weight: float = 1.0
    wait_s: float | None = None
    seen: float = 1.0
    unseen: float | None = None


class Verifier(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A term of the reward that the answer itself makes: pure and bounded."""

    kind: Literal["regex", "length", "finished", "json_schema", "exact", "numeric"]
    weight: float = 1.0
    passed: float = 1.0
    failed: float = 0.0
    pattern: str | None = None
    unit: Literal["words", "tokens", "characters"] = "words"
    min: int = 0
    max: int | None = None
    slope: float = 0.0
    schema: dict[str, Any] | None = None
    answer_tag: str = "answer"
    tolerance: float = 1e-6
