"""The live picture: what the page shows, and what each of its figures means.

Made by :mod:`services.dashboard.board`, sent as JSON by :mod:`services.dashboard.app`.
:data:`FIELDS` are the texts under the fields, by path: what a figure means and which topic it comes
from.
"""

from __future__ import annotations

import ast
import inspect
import typing

from services.dashboard import learning, system
from services.dashboard.learning import Latency, Reward, Section, Training, Versions
from services.dashboard.system import (
    Account,
    Alarms,
    Engines,
    Lags,
    Processes,
    Traffic,
)


class Picture(Section, kw_only=True):
    """All sections. Each is an event of `/api/stream` under its name."""

    reward: Reward
    """How satisfied people are."""
    latency: Latency
    """From feedback to the weights that serve it."""
    versions: Versions
    """The timeline of versions."""
    engines: Engines
    """Who serves what."""
    account: Account
    """The conservation table."""
    lag: Lags
    """How far behind everybody is."""
    training: Training
    """How training goes."""
    alarms: Alarms
    """What detectors say."""
    processes: Processes
    """Who writes, and when last."""
    traffic: Traffic
    """What flows."""


SECTIONS = Picture.__struct_fields__
"""Names of the sections, which are the names of the stream's events."""


def _texts() -> dict[str, dict[str, str]]:
    """The literal docstring under each field, by class and field."""
    found: dict[str, dict[str, str]] = {}
    for module in (learning, system, inspect.getmodule(Picture)):
        assert module is not None
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = {
                    field.target.id: " ".join(text.value.value.split())
                    for field, text in zip(node.body, node.body[1:], strict=False)
                    if isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                    and isinstance(text.value.value, str)
                }
    return found


def _fields(kind: type[Section], path: str, texts: dict[str, dict[str, str]]) -> dict[str, str]:
    """By path: ``reward.windows.share``; of a list the path leads through its items."""
    found: dict[str, str] = {}
    owned = {
        name: text
        for base in reversed(kind.__mro__)
        for name, text in texts.get(base.__name__, {}).items()
    }
    for name, hint in typing.get_type_hints(kind).items():
        if name not in kind.__struct_fields__:
            continue
        where = f"{path}{name}"
        found[where] = owned[name]
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and issubclass(inner, Section):
                found |= _fields(inner, f"{where}.", texts)
    return found


FIELDS: dict[str, str] = _fields(Picture, "", _texts())
"""What each figure means, by path."""
