"""Pure verifiers: what an answer is worth by itself. Bounded: text is cut, nothing is fetched,
patterns are matched in time linear in the text.

:func:`compiled` is called for each verifier when a spec is read, so that a wrong one is refused
there; score asks :class:`Verifiers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import json
import logging
from typing import Any, NoReturn

import msgspec

from services.rewards.terms import Verifier
from tailrace.checks import finder, last_number, within

logger = logging.getLogger(__name__)
MAX_CHARACTERS = 20_000
MAX_STEPS = 100_000
"""Of a schema's check: keywords asked, each with a step for every 64 characters or parts that it
looks at. Branches that lead back into it double the number with each level of an answer."""
_WHOLE = ("const", "enum", "uniqueItems")
"""Keywords that look at all that is inside a value."""
Verdict = tuple[float | None, str | None]
"""How far an answer passes, from 0.0 to 1.0; or None and why that cannot be said."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier may look at."""

    text: str | None
    tokens: int | None
    finish_reason: str | None
    tags: dict[str, str]


NOTHING = Answer(text=None, tokens=None, finish_reason=None, tags={})
"""For a spec without verifiers, which spares reading the answer."""


class Exhausted(Exception):
    """A schema's check took too many steps."""


class Verifiers:
    """The verifiers of a spec, by name. Raises ValueError where one cannot be made."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        self._verifiers = verifiers
        self._checks = {name: compiled(one) for name, one in verifiers.items()}

    def verify(self, name: str, answer: Answer) -> Verdict:
        """What an answer is worth to one verifier, between its failed and passed. Never raises."""
        verifier = self._verifiers[name]
        try:
            share, reason = _verify(verifier, self._checks[name], answer)
        except Exhausted:
            return None, "too_complex"
        except Exception as error:  # users write the answers, and libraries raise what they will
            logger.warning("verifier failed name=%s error=%r", name, error)
            return None, "verifier_error"
        if share is None:
            return None, reason
        return verifier.failed + share * (verifier.passed - verifier.failed), None


Check = Callable[[str], bool]


def compiled(verifier: Verifier) -> Check | None:
    """The check of a text that a pattern or a schema makes; None for the other kinds.

    Raises ValueError saying what is wrong with them.
    """
    if verifier.kind == "regex":
        if verifier.pattern is None:
            raise ValueError("a regex verifier needs one")
        return finder(verifier.pattern)
    if verifier.kind == "json_schema":
        if verifier.schema is None:
            raise ValueError("a json_schema verifier needs one")
        return _schema(verifier.schema)
    return None


def _verify(verifier: Verifier, check: Check | None, answer: Answer) -> Verdict:
    if verifier.kind == "finished":
        if answer.finish_reason is None:
            return None, "no_finish_reason"
        return float(answer.finish_reason in ("stop", "tool_calls")), None
    if verifier.kind == "length" and verifier.unit == "tokens":
        if answer.tokens is None:
            return None, "no_tokens"
        return _length(verifier, answer.tokens), None
    if answer.text is None:
        return None, "no_text"
    if verifier.kind == "length":
        words = verifier.unit == "words"
        return _length(verifier, len(answer.text.split()) if words else len(answer.text)), None
    if len(answer.text) > MAX_CHARACTERS:
        return None, "too_long"
    if check is not None:
        return float(check(answer.text)), None
    expected = answer.tags.get(verifier.answer_tag)
    if expected is None:
        return None, "no_expected_answer"
    if verifier.kind == "exact":
        return float(answer.text.strip() == expected.strip()), None
    wanted, given = last_number(expected), last_number(answer.text)
    if wanted is None:
        return None, "no_expected_answer"
    return float(given is not None and abs(given - wanted) <= verifier.tolerance), None


def _length(verifier: Verifier, length: int) -> float:
    return within(length, verifier.min, verifier.max, verifier.slope)


def _schema(schema: dict[str, Any]) -> Check:
    import jsonschema
    import referencing

    base = jsonschema.Draft202012Validator
    try:
        base.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(error.message) from None
    patterns = {pattern: finder(pattern) for pattern in _patterns_in(schema)}
    if any("unevaluatedProperties" in one for one in _tables_in(schema)) and any(
        "patternProperties" in one for one in _tables_in(schema)
    ):
        raise ValueError("unevaluatedProperties and patternProperties do not go together here")

    def matches(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not patterns[pattern](instance):
            yield jsonschema.ValidationError("pattern")

    def properties(validator: Any, given: dict[str, Any], instance: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            for pattern, inner in given.items():
                for key, value in instance.items():
                    if patterns[pattern](key):
                        yield from validator.descend(value, inner)

    def additional(validator: Any, given: Any, instance: Any, table: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            known = [patterns[pattern] for pattern in table.get("patternProperties", ())]
            for key, value in instance.items():
                if key not in table.get("properties", ()) and not any(one(key) for one in known):
                    yield from validator.descend(value, given)

    def unique(validator: Any, wanted: bool, instance: Any, _: Any) -> Iterator[Any]:
        if wanted and validator.is_type(instance, "array"):
            if len({_hashable(item) for item in instance}) < len(instance):
                yield jsonschema.ValidationError("uniqueItems")

    left = 0
    size = 0

    def counted(name: str, keyword: Any) -> Any:
        def ask(validator: Any, given: Any, instance: Any, table: Any) -> Any:
            nonlocal left
            parts = len(instance) if isinstance(instance, str | list | dict) else 0
            left -= 1 + (size if name in _WHOLE else parts) // 64
            if left < 0:
                raise Exhausted
            return keyword(validator, given, instance, table)

        return ask

    # The library's own pattern keywords backtrack, and its uniqueItems is quadratic.
    own = {
        "pattern": matches,
        "patternProperties": properties,
        "additionalProperties": additional,
        "uniqueItems": unique,
    }
    keywords = {**base.VALIDATORS, **own}
    bounded = jsonschema.validators.extend(
        base, {name: counted(name, keyword) for name, keyword in keywords.items()}
    )
    # An empty registry: a $ref to elsewhere fails, it is never fetched.
    validator = bounded(schema, registry=referencing.Registry())

    def check(text: str) -> bool:
        nonlocal left, size
        left, size = MAX_STEPS, len(text)
        try:
            document: Any = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        try:
            return bool(validator.is_valid(document))
        except (referencing.exceptions.Unresolvable, RecursionError):
            return False

    return check


_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose keys are names, and whose values are schemas."""


def _tables_in(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all that may be one inside it."""
    if isinstance(schema, list):
        for part in schema:
            yield from _tables_in(part)
    elif isinstance(schema, dict):
        yield schema
        for key, part in schema.items():
            if key in _BY_NAME and isinstance(part, dict):
                yield from _tables_in(list(part.values()))
            elif key not in ("const", "enum", "default", "examples"):
                yield from _tables_in(part)


def _patterns_in(schema: dict[str, Any]) -> Iterator[str]:
    for table in _tables_in(schema):
        if isinstance(table.get("pattern"), str):
            yield table["pattern"]
        if isinstance(table.get("patternProperties"), dict):
            yield from table["patternProperties"]


def _hashable(value: Any) -> Any:
    """A key that is equal where JSON values are: 1 is 1.0 and is not true."""
    if isinstance(value, dict):
        return frozenset((key, _hashable(part)) for key, part in value.items())
    if isinstance(value, list):
        return tuple(_hashable(part) for part in value)
    return (type(value) is bool, value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
