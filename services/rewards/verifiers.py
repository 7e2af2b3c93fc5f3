"""Pure verifiers: what an answer is worth by itself. Bounded: text is cut, nothing is fetched.

Called by score; parameters come checked from spec.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, NoReturn

import msgspec

from services.rewards.spec import Verifier

logger = logging.getLogger(__name__)
MAX_CHARACTERS = 20_000
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier may look at."""

    text: str | None
    tokens: int | None
    finish_reason: str | None
    tags: dict[str, str]


def verify(verifier: Verifier, answer: Answer) -> tuple[bool | None, str | None]:
    """Whether the answer passes; None and a reason where that cannot be said. Never raises."""
    try:
        return _verify(verifier, answer)
    except Exception as error:  # users write the answers, and libraries raise what they will
        logger.warning("verifier failed kind=%s error=%r", verifier.kind, error)
        return None, "verifier_error"


def _verify(verifier: Verifier, answer: Answer) -> tuple[bool | None, str | None]:
    if verifier.kind == "finished":
        if answer.finish_reason is None:
            return None, "no_finish_reason"
        return answer.finish_reason in ("stop", "tool_calls"), None
    if verifier.kind == "length" and verifier.unit == "tokens":
        if answer.tokens is None:
            return None, "no_tokens"
        return _within(verifier, answer.tokens), None
    if answer.text is None:
        return None, "no_text"
    if verifier.kind == "length":
        words = verifier.unit == "words"
        return _within(verifier, len(answer.text.split()) if words else len(answer.text)), None
    if len(answer.text) > MAX_CHARACTERS:
        return None, "too_long"
    if verifier.kind == "regex":
        assert verifier.pattern is not None
        return re.search(verifier.pattern, answer.text) is not None, None
    if verifier.kind == "json_schema":
        return _matches_schema(verifier, answer.text), None
    expected = answer.tags.get(verifier.answer_tag)
    if expected is None:
        return None, "no_expected_answer"
    if verifier.kind == "exact":
        return answer.text.strip() == expected.strip(), None
    wanted, given = _last_number(expected), _last_number(answer.text)
    if wanted is None:
        return None, "no_expected_answer"
    return given is not None and abs(given - wanted) <= verifier.tolerance, None


def _within(verifier: Verifier, length: int) -> bool:
    return verifier.min <= length and (verifier.max is None or length <= verifier.max)


def _matches_schema(verifier: Verifier, text: str) -> bool:
    import jsonschema
    import referencing

    try:
        document: Any = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    # An empty registry: a $ref to elsewhere fails, it is never fetched.
    validator = jsonschema.Draft202012Validator(
        verifier.schema or {}, registry=referencing.Registry()
    )
    try:
        return bool(validator.is_valid(document))
    except (referencing.exceptions.Unresolvable, RecursionError):
        return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
