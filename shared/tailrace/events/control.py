"""Alarms, orders of people and the clock of the rewards."""

from __future__ import annotations

from tailrace.events.base import Coordinates, Struct


class Alarm(Struct, frozen=True, kw_only=True):
    """A detector fired or cleared."""

    stream: str
    event_time_ms: int
    detector: str | None = None
    state: str = "fired"
    """``fired`` or ``cleared``."""
    value: float | None = None
    baseline: float | None = None
    seen: int | None = None
    """Values that the detector had seen when it fired."""
    source: Coordinates | None = None
    """The record that made it fire."""
    message: str | None = None


class Command(Struct, frozen=True, kw_only=True):
    """An order given by a person."""

    model: str = ""
    event_time_ms: int
    command: str = ""
    """freeze, thaw, drain or keyframe, of the trainer; rollback, pin or follow, of the releases
    service; erase."""
    version: int | None = None
    principal: str | None = None
    reason: str | None = None
    parameters: dict[str, str] = {}


class Tick(Struct, frozen=True, kw_only=True):
    """The rewards clock of one partition (see DESIGN section 5)."""

    partition: int = 0
    event_time_ms: int
    """Log time that is safely past: entries whose deadline is not later may close."""
    ends: dict[str, int] = {}
    """End offset of each input topic in this partition, fetched after ``event_time_ms`` was."""
