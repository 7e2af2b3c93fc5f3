"""Send feedback over HTTP and ask what became of it.

    client = tailrace.Client("http://127.0.0.1:8080")
    client.feedback(answer.id, True)                        # a thumb
    client.feedback(answer.id, 4, metric="stars")           # a number
    client.feedback(answer.id, "too long", metric="comment")
    client.feedback(answer.id, choice=1, preferred_over="0", metric="better")
    client.batch([{"inference_id": answer.id, "metric_name": "thumbs", "value": True}, ...])

The feedback id is made here, before the first attempt, and kept over retries, so feedback is
counted once however often it had to be sent. Safe between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
import time
from types import TracebackType
from typing import Any
import uuid

import httpx

from tailrace import feedback_json
from tailrace.errors import InvalidRecord, TailraceError

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_BATCH = 1000
"""What the gateway takes in one request."""
_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)


class FeedbackRefused(TailraceError):
    """The gateway did not take it. ``status`` is the HTTP status; None: no answer came at all."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(f"{status or 'no answer'}: {detail}")
        self.status = status


class Client:
    """One gateway. ``attempts`` bounds how often a request is sent in all.

    ``key``: an API key; or ``token``: a browser token, good for the one interaction it names.
    ``transport`` and ``sleep`` are for tests: any httpx transport, any way to wait.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if key and token:
            raise ValueError("either a key or a token")
        bearer = key or token
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        base = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(
            base_url=base, headers=headers, timeout=timeout_s, transport=transport
        )
        self._attempts = attempts
        self._sleep = sleep

    def feedback(
        self,
        subject: str,
        value: bool | float | str | None = None,
        *,
        metric: str = "thumbs",
        kind: str | None = None,
        choice: int = 0,
        feedback_id: str | None = None,
        replaces: str | None = None,
        preferred_over: str | None = None,
        tags: Mapping[str, str] | None = None,
        user: str | None = None,
        source: str = "user",
        grader: str | None = None,
    ) -> str:
        """Say something about an interaction (the ``id`` of the answer) or a session.

        True/False, a number, or text (metric or ``kind`` ``comment`` or ``demonstration``; else a
        category). ``preferred_over``, in place of a value: the answer of the same session that
        this one is better than. ``replaces`` names an earlier feedback id of the same subject that
        this one supersedes. Returns the feedback id. It is durable when this returns.

        Raises FeedbackRefused: the gateway said no, or could not be reached in all attempts.
        InvalidRecord, naming the field, for what JSON cannot hold: a number that is not finite.
        """
        document = feedback_json.document(
            subject,
            value,
            metric=metric,
            tags=tags,
            kind=kind,
            choice=choice or None,
            feedback_id=feedback_id or uuid.uuid4().hex,
            replaces=replaces,
            preferred_over=preferred_over,
            user=user,
            source=None if source == "user" else source,
            grader=grader,
        )
        _check(document)
        return _id(self._send("POST", "/v1/feedback", document), document)

    def batch(self, documents: Sequence[Mapping[str, Any]]) -> list[str]:
        """Send many, each as the JSON table of ``docs/topics.md`` has it; their ids in order.

        Up to 1000 go in a request, which the gateway takes whole or not at all; more are split.
        Name your own ``feedback_id`` where you may have to begin again.

        Raises FeedbackRefused; earlier requests of the same call were taken then. InvalidRecord as
        :meth:`feedback` does, and nothing was sent.
        """
        named = [
            dict(document) | {"feedback_id": document.get("feedback_id") or uuid.uuid4().hex}
            for document in documents
        ]
        for number, document in enumerate(named):
            _check(document, f" (of [{number}])")
        found = []
        for start in range(0, len(named), _BATCH):
            part = named[start : start + _BATCH]
            answer = self._send("POST", "/v1/feedback", part).get("results", [])
            answers = answer if isinstance(answer, list) and len(answer) == len(part) else part
            found += [_id(one, sent) for one, sent in zip(answers, part, strict=True)]
        return found

    def token(
        self,
        interaction: str,
        *,
        metrics: Sequence[str] | None = None,
        user: str | None = None,
        expires_in_s: int | None = None,
    ) -> str:
        """A token that lets a page send feedback about one interaction, without a key.

        ``metrics``: only these; ``user``: who it will be from. Raises FeedbackRefused.
        """
        wanted = {
            "inference_id": interaction,
            "metrics": None if metrics is None else list(metrics),
            "user": user,
            "expires_in_s": expires_in_s,
        }
        document = {name: what for name, what in wanted.items() if what is not None}
        return str(self._send("POST", "/v1/feedback/tokens", document).get("token"))

    def retract(self, feedback_id: str) -> None:
        """Take feedback back. Raises FeedbackRefused."""
        self._send("DELETE", f"/v1/feedback/{feedback_id}")

    def fate(self, feedback_id: str) -> dict[str, Any]:
        """What became of feedback: joined, trained in which version, serving since when.

        Raises FeedbackRefused (404: unknown; 503: the gateway keeps no such view).
        """
        return self._send("GET", f"/v1/feedback/{feedback_id}")

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        refused, asked_s = FeedbackRefused(None, "not sent"), 0.0
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(max(_FIRST_PAUSE_S * 2 ** (attempt - 1), asked_s))
            try:
                response = self._http.request(method, path, json=document)
            except httpx.TransportError as error:
                refused, asked_s = FeedbackRefused(None, str(error) or type(error).__name__), 0.0
                continue
            if response.is_success:
                return _object(response)
            refused, asked_s = FeedbackRefused(response.status_code, _message(response)), 0.0
            if (after := response.headers.get("retry-after", "")).isdecimal():
                asked_s = min(float(after), _LONGEST_PAUSE_S)
            if response.status_code not in _RETRIED_STATUSES:
                break
        raise refused


def _check(document: Mapping[str, Any], place: str = "") -> None:
    """Raises InvalidRecord for the first value that cannot be sent as JSON."""
    for name, value in document.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRecord(name, f"cannot be sent as JSON{place}: {error}") from None


def _id(answer: Any, sent: Mapping[str, Any]) -> str:
    given = answer.get("feedback_id") if isinstance(answer, dict) else None
    return given if isinstance(given, str) else str(sent["feedback_id"])


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json() if response.content else {}
    except ValueError:
        document = {}
    return document if isinstance(document, dict) else {"results": document}


def _message(response: httpx.Response) -> str:
    error = _object(response).get("error", {})
    said = error.get("message") if isinstance(error, dict) else error
    return str(said or response.text[:200] or response.reason_phrase)
