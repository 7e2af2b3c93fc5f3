"""The log: :mod:`base` is the interface, :mod:`kafka` and :mod:`memory` implement it."""

from tailrace.log.base import Consumer, Headers, Log, LogRecord, Position, Producer

__all__ = ["Consumer", "Headers", "Log", "LogRecord", "Position", "Producer"]
