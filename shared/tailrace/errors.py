"""Everything that tailrace raises on purpose.

TailraceError
├── SettingsError        a settings file or variable is wrong; processes exit 2
├── InvalidRecord        bytes that are no record, or a record that breaks its contract
│   └── UnknownSchema    the bytes name a schema that nobody has published (may come later)
├── LogError             the broker refused or did not answer in time
│   ├── Broken           this producer will never append again; a new one may
│   │   └── Fenced       another producer took over this transactional id
│   ├── TooLarge         no record of this size is ever taken
│   └── MissingTopic     no topic has this name
└── UpdateRefused        a model update that does not verify
"""

from __future__ import annotations


class TailraceError(Exception):
    """Base of all."""


class SettingsError(TailraceError, ValueError):
    """A setting is unknown, missing or of the wrong type; the message names its key."""


class InvalidRecord(TailraceError, ValueError):
    """``reason`` is a short fixed word for metrics and receipts, the message says the rest."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class UnknownSchema(InvalidRecord):
    """The record's fingerprint is not known here (yet)."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__("unknown_schema", f"fingerprint {fingerprint}")
        self.fingerprint = fingerprint


class LogError(TailraceError):
    """The log could not do what was asked; the message says which topic and why."""


class Broken(LogError):
    """A fatal error ended this producer: nothing more is appended by it, only by a new one."""


class Fenced(Broken):
    """A newer producer with the same transactional id exists; this one must end."""


class TooLarge(LogError):
    """The record is larger than the log takes: sending it again is of no use."""


class MissingTopic(LogError):
    """The log answered, and has no topic of this name."""


class UpdateRefused(TailraceError):
    """``reason``: of its manifest ``unsigned``, ``unknown_key``, ``signature``; of its bytes
    ``truncated``, ``corrupt``, ``uri`` (which may be right when they are read again); of what they
    make ``digest``, ``base``, ``gap``, ``kind``, ``codec``, ``undo``; of the host ``no room``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
