"""Browser tokens: a signed, expiring word that lets a page speak of one interaction without a key.

    trt1.<payload>.<HMAC-SHA256 of all before it>        both base64url, without padding

The payload is JSON (``i`` interaction, ``e`` expiry in seconds, ``m`` metrics, ``u`` user, ``p``
the principal of the key that asked for it) and no secret. The first key signs, every key verifies,
so keys are changed by putting the new one in front. Called by :mod:`services.gateway.entrance`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
import hashlib
import hmac
import os
from pathlib import Path
import secrets

import msgspec

from services.gateway.errors import ApiError, invalid

MARK = "trt1."
LONGEST_S = 7 * 24 * 3600
_KEY_BYTES = 32
_SHORTEST_KEY_BYTES = 16
_LONGEST = 2048


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token allows: feedback on one interaction, on some metrics, as one user."""

    interaction: str = msgspec.field(name="i")
    expires_s: int = msgspec.field(name="e")
    metrics: tuple[str, ...] | None = msgspec.field(name="m", default=None)
    """None: any metric."""
    user: str | None = msgspec.field(name="u", default=None)
    principal: str | None = msgspec.field(name="p", default=None)


class Tokens:
    """Makes tokens and reads them."""

    def __init__(self, keys: Sequence[bytes], *, ttl_s: int, now_ms: Callable[[], int]) -> None:
        """``ttl_s``: how long a token lasts that did not ask. ``now_ms``: wall clock.

        Raises ValueError without keys, for one that is too short, for a ``ttl_s`` out of bounds.
        """
        if not keys or min(map(len, keys)) < _SHORTEST_KEY_BYTES:
            raise ValueError(f"a token key has at least {_SHORTEST_KEY_BYTES} bytes")
        if not 1 <= ttl_s <= LONGEST_S:
            raise ValueError(f"a token lasts 1 to {LONGEST_S} seconds")
        self._keys = list(keys)
        self._ttl_s = ttl_s
        self._now_ms = now_ms

    def issue(
        self,
        interaction: str,
        *,
        metrics: Sequence[str] | None = None,
        user: str | None = None,
        principal: str | None = None,
        ttl_s: int | None = None,
    ) -> tuple[str, Grant]:
        """A token and what it allows. Raises ApiError (400) when it would last or be too long."""
        ttl_s = self._ttl_s if ttl_s is None else ttl_s
        if not 1 <= ttl_s <= LONGEST_S:
            raise invalid(f"expires_in_s is between 1 and {LONGEST_S}", "expires_in_s")
        grant = Grant(
            interaction=interaction,
            expires_s=self._now_ms() // 1000 + ttl_s,
            metrics=None if metrics is None else tuple(metrics),
            user=user,
            principal=principal,
        )
        signed = MARK + _text(msgspec.json.encode(grant))
        token = f"{signed}.{_text(_mac(self._keys[0], signed))}"
        if len(token) > _LONGEST:
            raise invalid(f"the token would be longer than {_LONGEST} characters")
        return token, grant

    def read(self, token: str) -> Grant:
        """What a token allows. Raises ApiError (401): ``invalid_token``, ``token_expired``."""
        signed, _, mac = token.rpartition(".")
        try:
            if len(token) > _LONGEST or not signed.startswith(MARK):
                raise ValueError
            told = _bytes(mac)
            if not any([hmac.compare_digest(_mac(key, signed), told) for key in self._keys]):
                raise ValueError
            grant = msgspec.json.decode(_bytes(signed.removeprefix(MARK)), type=Grant)
        except (ValueError, msgspec.DecodeError):
            raise ApiError(401, "this is no token of ours", code="invalid_token") from None
        if grant.expires_s * 1000 <= self._now_ms():
            raise ApiError(401, "the token has expired", code="token_expired")
        return grant


def made_key(file: Path) -> bytes:
    """The key in a file, made at the first time; only its owner may read it. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        # Whole or not at all: a half-written key would refuse what the whole one signed.
        part = file.with_name(f"{file.name}.{os.getpid()}")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(secrets.token_bytes(_KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    return file.read_bytes()


def _mac(key: bytes, signed: str) -> bytes:
    return hmac.digest(key, signed.encode(), hashlib.sha256)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Exactly what :func:`_text` made. Raises ValueError: two texts for one value would be two
    tokens."""
    value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(value) != text:
        raise binascii.Error("not canonical")
    return value
