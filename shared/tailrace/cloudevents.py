"""CloudEvents as foreign producers send them: where an event says what its body leaves out.

In: the headers and bytes of one JSON record. Out: the attributes of its event (``id``, ``source``,
``subject``, ``time``) and the body. Binary mode has the attributes in ``ce_*`` headers, structured
mode (``content-type: application/cloudevents+json``) has them around the body; from here on there
is no difference. Called by :mod:`tailrace.feedback_json`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from tailrace.errors import InvalidRecord

STRUCTURED = b"application/cloudevents+json"
_LATEST_MS = 2**53


class _Envelope(msgspec.Struct):
    specversion: str
    id: str
    source: str
    subject: str | None = None
    time: str | None = None
    data: Any = None
    data_base64: str | None = None


def media_type(headers: Mapping[str, bytes]) -> bytes:
    """The media type that ``content-type`` names, without its parameters."""
    return headers.get("content-type", b"").split(b";")[0].strip().lower()


def opened(
    value: bytes, headers: Mapping[str, bytes]
) -> tuple[Mapping[str, bytes], bytes | dict[str, Any]]:
    """Headers as binary mode has them, and the body (structured ``data``: decoded already).

    Raises InvalidRecord (``cloudevent``) for an envelope that is none.
    """
    if media_type(headers) != STRUCTURED:
        return headers, value
    try:
        event = msgspec.json.decode(value, type=_Envelope)
        data = event.data
        if event.data_base64 is not None:
            if data is not None:
                raise ValueError("data and data_base64 at once")
            data = base64.b64decode(event.data_base64, validate=True)
    except (msgspec.MsgspecError, ValueError, RecursionError, binascii.Error) as error:
        raise InvalidRecord("cloudevent", str(error)) from None
    if event.specversion != "1.0":
        raise InvalidRecord("cloudevent", f"specversion {event.specversion!r} is not 1.0")
    if not isinstance(data, (bytes, dict)):
        raise InvalidRecord("cloudevent", "data is a JSON object")
    said = {"id": event.id, "source": event.source, "subject": event.subject, "time": event.time}
    return {f"ce_{name}": text.encode() for name, text in said.items() if text is not None}, data


def attribute(headers: Mapping[str, bytes], name: str) -> str | None:
    """One attribute of the event; None where there is none or it is no text."""
    try:
        return headers[f"ce_{name}"].decode()
    except (KeyError, UnicodeDecodeError):
        return None


def time_ms(headers: Mapping[str, bytes]) -> int | None:
    """When the event says it happened (RFC 3339). None: it does not, or not readably."""
    try:
        when = datetime.fromisoformat(attribute(headers, "time") or "")
        value = int(when.timestamp() * 1000) if when.tzinfo else -1
    except (ValueError, OverflowError):
        return None
    return value if 0 <= value <= _LATEST_MS else None
