"""What people wrote and were answered is left out. Pure.

In: records as JSON-ready objects (:func:`tailrace.reading.as_document`, answers of
:mod:`tailrace.why`). Out: the same with nothing in place of every text and token of a person. Ids,
pseudonyms, numbers and tags stay. Called where ``mask_content`` is set.
"""

from __future__ import annotations

import json
from typing import Any

_PERSONAL = ("content", "messages", "message", "demonstration", "text", "category")
"""Members that hold texts or tokens: of records, and of what is said of them."""
_HEADERS = (
    *("tailrace-reason", "tailrace-source", "tailrace-time-ms", "tailrace-truncated"),
    *("tailrace-key", "ce_specversion", "ce_type", "ce_source", "ce_id", "ce_subject", "ce_time"),
    *("content-type", "traceparent"),
)
"""Those that say where a record is from. Any other may hold anything, or quote the record."""
_NUMBERS_CHARS = 40
"""A longer sampling parameter is no number."""


def masked(document: Any) -> Any:
    """A copy without personal content.

    >>> masked({"user": "u1", "content": {"text": "secret"}, "tokens": [{"id": 7, "version": 1}]})
    {'user': 'u1', 'content': None, 'tokens': [{'id': None, 'version': 1}]}
    """
    if isinstance(document, list):
        return [masked(one) for one in document]
    if not isinstance(document, dict):
        return document
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name in _PERSONAL:
            found[name] = None
        elif name == "sampling" and isinstance(value, dict):
            found[name] = {n: v if _is_number(v) else None for n, v in value.items()}
        elif name == "headers" and isinstance(value, dict):
            found[name] = {n: v if n in _HEADERS else None for n, v in value.items()}
        elif name == "invalid" and isinstance(value, dict):
            found[name] = {"reason": value.get("reason"), "detail": None}
        elif name == "tokens" and isinstance(value, list):
            found[name] = [
                {**t, "id": None, "text": None} if "text" in t else {**t, "id": None} for t in value
            ]
        else:
            found[name] = masked(value)
    return found


def _is_number(text: Any) -> bool:
    """Whether a sampling parameter, a JSON text, says a number or a switch; stop words, schemas
    and lists of tokens are what people wrote."""
    try:
        value = json.loads(text) if len(text) < _NUMBERS_CHARS else text
    except (TypeError, ValueError, RecursionError):
        return False
    return value is None or isinstance(value, (bool, int, float))


def cut(document: Any, chars: int) -> tuple[Any, bool]:
    """A copy whose texts and lists are no longer than ``chars``; whether any was.

    >>> cut({"a": "long text", "b": [1, 2]}, 4)
    ({'a': 'long…', 'b': [1, 2]}, True)
    """
    if isinstance(document, str):
        return (document[:chars] + "…", True) if len(document) > chars else (document, False)
    if isinstance(document, list):
        parts = [cut(one, chars) for one in document[:chars]]
        return [p for p, _ in parts], len(document) > chars or any(was for _, was in parts)
    if isinstance(document, dict):
        pairs = {name: cut(value, chars) for name, value in document.items()}
        return {n: p for n, (p, _) in pairs.items()}, any(was for _, was in pairs.values())
    return document, False
