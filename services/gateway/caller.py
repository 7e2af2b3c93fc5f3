"""Who is calling, in which session, and whether it may be learned from.

Headers ``x-tailrace-session``, ``x-tailrace-user``, ``x-tailrace-learn``, ``x-tailrace-task``; or
the same with underscores in the body's ``metadata`` (``tailrace_session``, …), the header winning.
OpenAI's own ``user`` field counts as the user. Other metadata become tags. W3C's ``traceparent`` is
handed on to the records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import hashlib

import msgspec
from starlette.requests import Request

from services.gateway import metrics
from services.gateway.errors import ApiError, invalid
from services.gateway.requests import Body
from services.gateway.tokens import Grant
from tailrace import ids, traces

DEFAULT_TENANT = "default"
TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
_TAGS_BYTES = 16 * 1024
_NAME_CHARACTERS = 1024


class Caller(msgspec.Struct, frozen=True):
    """Who the API key or the browser token says it is."""

    tenant: str
    principal: str | None
    grant: Grant | None = None
    """Of a browser token: nothing beyond it is allowed. None: the caller has a key."""
    grader: bool = False
    """Whether it may give feedback as a grader."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says about itself."""

    session: str
    user: str | None
    learn: bool
    task: str | None
    tags: dict[str, str]
    traceparent: str | None = None


class Keys:
    """API keys, kept as hashes; the principal is the hash's beginning, which is no secret."""

    def __init__(self, keys: Mapping[str, str], graders: Collection[str]) -> None:
        """``keys``: key to tenant; empty: nobody needs one, and everybody may be a grader.
        ``graders``: those of the keys whose holders may.

        Raises InvalidRecord for a malformed tenant.
        """
        self._graders = frozenset(map(_hash, graders))
        self._tenants = {_hash(key): tenant for key, tenant in keys.items()}
        for tenant in self._tenants.values():
            ids.session_of(f"{tenant}:x")

    def caller(self, request: Request) -> Caller:
        """The caller of a request. Raises ApiError (401)."""
        if not self._tenants:
            return Caller(DEFAULT_TENANT, None, grader=True)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        mark = _hash(key.strip())
        if scheme.lower() != "bearer" or mark not in self._tenants:
            raise ApiError(401, "missing or unknown API key", code="invalid_api_key")
        return Caller(self._tenants[mark], mark[:16], grader=mark in self._graders)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def terms(
    request: Request, body: Body, caller: Caller, *, learn_default: bool, now_ms: int
) -> Terms:
    """Session, user, consent and tags of a request. Raises ApiError (400), ForeignTenant."""
    tags = dict(body.metadata or {})
    named = {name: tags.pop(f"tailrace_{name}", None) for name in _NAMES}
    for name in _NAMES:
        named[name] = request.headers.get(f"x-tailrace-{name}", named[name])
    if sum(len(k) + len(v) for k, v in tags.items()) > _TAGS_BYTES:
        raise invalid(f"metadata is larger than {_TAGS_BYTES} bytes", "metadata")
    user, task = named["user"] or body.user, named["task"]
    for name, text in (("user", user), ("task", task)):
        if len(text or "") > _NAME_CHARACTERS:
            raise invalid(f"{name} is longer than {_NAME_CHARACTERS} characters", name)
    session = named["session"]
    return Terms(
        session=ids.claim_session(session, caller.tenant)
        if session
        else ids.new_session(caller.tenant, now_ms),
        user=user,
        learn=_learn(named["learn"], learn_default),
        task=task,
        tags=tags,
        traceparent=traceparent(request),
    )


def traceparent(request: Request) -> str | None:
    """The request's trace context (https://www.w3.org/TR/trace-context/), where it is well formed.

    Another one is ignored, as that page has it, and counted.
    """
    text = request.headers.get("traceparent")
    if text is None:
        return None
    if not traces.well_formed(text):
        metrics.TRACEPARENTS_IGNORED.inc()
        return None
    return text


_NAMES = ("session", "user", "learn", "task")


def _learn(text: str | None, default: bool) -> bool:
    if text is None:
        return default
    if text.lower() in TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise invalid("x-tailrace-learn must be true or false", "x-tailrace-learn")
