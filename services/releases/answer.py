"""What an order about versions makes of the release in force. Pure.

    rollback V   ``follow`` from V on; every version after V so far is withdrawn
    pin V        V is served until another word; training goes on as it was to
    follow       a pin ends; what was rolled back before it stays so

Each order gets one release, in the order of the log. One that cannot be obeyed gets the release in
force once more, with a reason that says why (:func:`tailrace.weights.releases.refusal`): whoever
ordered finds the answer by the coordinates of the order, and so does a restart.
Called by :mod:`services.releases.desk`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tailrace.events import Command, Coordinates, ModelUpdate, Release
from tailrace.weights.lineage import Lineage
from tailrace.weights.releases import refused

ORDERS = ("rollback", "pin", "follow")
"""The commands that are ours."""
DATA = ("skip", "retrain")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What holds before an order."""

    newest: Release | None
    """In force; None: never a word."""
    followed: Release | None
    """The newest of mode ``follow``."""


def answer(
    command: Command,
    at: Coordinates,
    lineage: Lineage,
    standing: Standing,
    *,
    now_ms: int,
    lost: Callable[[ModelUpdate], str | None],
) -> Release:
    """The release that answers one order. ``at`` is where the order lies on ``control``; ``lost``
    says why a version cannot be made of what lies on the log and in the store, if it cannot."""
    assert command.command in ORDERS
    reason = command.reason
    why = _wrong(command, lineage, lost)
    if why is not None:
        made, reason = standing.newest or Release(event_time_ms=now_ms), refused(why)
    elif command.command == "follow":
        made = standing.followed or Release(event_time_ms=now_ms)
    elif command.command == "pin":
        made = Release(event_time_ms=now_ms, mode="pin", live=command.version)
    else:
        assert lineage.head is not None
        made = Release(
            event_time_ms=now_ms,
            live=command.version,
            withdrawn_to=lineage.head.version,
            data=command.parameters.get("data", DATA[0]),
        )
    return msgspec.structs.replace(
        made, model=command.model, event_time_ms=now_ms, command=at, reason=reason
    )


def _wrong(
    command: Command, lineage: Lineage, lost: Callable[[ModelUpdate], str | None]
) -> str | None:
    if command.command == "follow":
        return None
    if command.version is None:
        return f"{command.command} names no version"
    update = lineage.updates.get(command.version)
    if update is None:
        newest = "none" if lineage.head is None else str(lineage.head.version)
        return f"there is no version {command.version}; the newest is {newest}"
    why = lost(update)
    if why is not None:
        return f"version {command.version} {why}"
    data = command.parameters.get("data", DATA[0])
    if command.command == "rollback" and data not in DATA:
        return f"data is {data!r:.40}, not {' or '.join(DATA)}"
    return None
