"""Feedback becomes weights while the model serves: the library for whoever touches the water.

>>> import tailrace
>>> tailrace.Client("http://127.0.0.1:8080").feedback(answer.id, True)     # doctest: +SKIP
>>> tailrace.FeedbackProducer("127.0.0.1:9092").send(answer.id, True)      # doctest: +SKIP
>>> for update in tailrace.ModelUpdates("127.0.0.1:9092", "my-model"): ... # doctest: +SKIP
>>> for record, event in tailrace.read("alarms", follow=True): ...         # doctest: +SKIP

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace import events as events
    from tailrace.client import Client as Client
    from tailrace.client import FeedbackRefused as FeedbackRefused
    from tailrace.errors import InvalidRecord as InvalidRecord
    from tailrace.errors import LogError as LogError
    from tailrace.errors import TailraceError as TailraceError
    from tailrace.errors import UpdateRefused as UpdateRefused
    from tailrace.producer import FeedbackProducer as FeedbackProducer
    from tailrace.reading import read as read
    from tailrace.updates import ModelUpdates as ModelUpdates

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Client": "tailrace.client",
    "FeedbackProducer": "tailrace.producer",
    "FeedbackRefused": "tailrace.client",
    "InvalidRecord": "tailrace.errors",
    "LogError": "tailrace.errors",
    "ModelUpdates": "tailrace.updates",
    "TailraceError": "tailrace.errors",
    "UpdateRefused": "tailrace.errors",
    "read": "tailrace.reading",
}

__all__ = [
    "Client",
    "FeedbackProducer",
    "FeedbackRefused",
    "InvalidRecord",
    "LogError",
    "ModelUpdates",
    "TailraceError",
    "UpdateRefused",
    "events",
    "read",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    from importlib import import_module

    if name == "events":
        return import_module("tailrace.events")
    if name not in _HOMES:
        raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
