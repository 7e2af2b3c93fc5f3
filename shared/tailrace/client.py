"""Send feedback over HTTP and ask what became of it.

    client = tailrace.Client("http://127.0.0.1:8080")
    client.feedback(answer.id, True)                        # a thumb
    client.feedback(answer.id, 4, metric="stars")           # a number
    client.feedback(answer.id, "too long", metric="comment")

The feedback id is made here, before the first attempt, and kept over retries, so feedback is
counted once however often it had to be sent. Safe between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time
from types import TracebackType
from typing import Any
import uuid

import httpx

from tailrace.errors import TailraceError

_FIRST_PAUSE_S = 0.2
_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)


class FeedbackRefused(TailraceError):
    """The gateway did not take it. ``status`` is the HTTP status; None: no answer came at all."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(f"{status or 'no answer'}: {detail}")
        self.status = status


class Client:
    """One gateway. ``attempts`` bounds how often a request is sent in all.

    ``transport`` and ``sleep`` are for tests: any httpx transport, any way to wait.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
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
        feedback_id: str | None = None,
        replaces: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Say something about an interaction (the ``id`` of the answer) or a session.

        True/False, a number, or text (metric ``comment`` or ``demonstration``; else a category).
        ``replaces`` names an earlier feedback id of the same subject that this one supersedes.
        Returns the feedback id. It is durable when this returns.

        Raises FeedbackRefused: the gateway said no, or could not be reached in all attempts.
        """
        document: dict[str, Any] = {
            "inference_id" if "~" in subject else "episode_id": subject,
            "metric_name": metric,
            "value": value,
            "feedback_id": feedback_id or uuid.uuid4().hex,
        }
        if replaces is not None:
            document["replaces"] = replaces
        if tags:
            document["tags"] = dict(tags)
        answer = self._send("POST", "/v1/feedback", document)
        given = answer.get("feedback_id")
        return given if isinstance(given, str) else str(document["feedback_id"])

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

    def _send(
        self, method: str, path: str, document: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        refused = FeedbackRefused(None, "not sent")
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                response = self._http.request(method, path, json=document)
            except httpx.TransportError as error:
                refused = FeedbackRefused(None, str(error) or type(error).__name__)
                continue
            if response.is_success:
                return _object(response)
            refused = FeedbackRefused(response.status_code, _message(response))
            if response.status_code not in _RETRIED_STATUSES:
                break
        raise refused


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
