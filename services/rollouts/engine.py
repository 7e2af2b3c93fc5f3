"""The one place here that knows vLLM's HTTP API: how busy it is, tokens of a prompt, one answer.

``GET /metrics``, ``POST /tokenize``, ``POST /inference/v1/generate`` (vLLM 0.32, started with
``--enable-scale-out --logprobs-mode processed_logprobs``). A request that is cancelled closes its
connection, and vLLM then ends it. Called by :mod:`.rollouts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from services.rollouts import answer as answers
from services.rollouts.answer import Answer
from services.rollouts.share import Load, load_of
from tailrace.tasks.benchmark import Task

_LOOK_S = 1.0


class Broke(Exception):
    """A request without an answer. ``reason`` is a fixed word; ``final``: it is the request's own
    fault, and asking again is of no use."""

    def __init__(self, reason: str, detail: str, *, final: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.final = reason, final


class Engine:
    """One vLLM. ``priority``: sent with each request, None: none is."""

    def __init__(
        self,
        name: str,
        url: str,
        http: httpx.AsyncClient,
        *,
        temperature: float,
        priority: int | None,
        answer_s: float,
        clock_ms: Callable[[], int],
    ) -> None:
        self._name, self._url, self._http = name, url.rstrip("/"), http
        self._sampling = {} if temperature == 1.0 else {"temperature": temperature}
        self._more = {} if priority is None else {"priority": priority}
        self._answer_s, self._clock_ms = answer_s, clock_ms

    async def load(self) -> Load | None:
        """How busy it is; None when it does not say."""
        try:
            async with asyncio.timeout(_LOOK_S):
                found = await self._http.get(f"{self._url}/metrics")
        except (httpx.HTTPError, TimeoutError):
            return None
        return load_of(found.text) if found.status_code == 200 else None

    async def tokens(self, task: Task) -> list[int]:
        """What the model reads when it is asked a task, by its own template. Raises Broke."""
        body = {"messages": task.asked} if task.messages else {"prompt": task.asked}
        found = msgspec.json.decode(await self._post("/tokenize", body), type=dict[str, Any])
        tokens: list[int] = found.get("tokens") or []
        if not tokens:
            raise Broke("no_tokens", task.id, final=True)
        return tokens

    async def answer(self, tokens: list[int], max_tokens: int, traceparent: str = "") -> Answer:
        """One sample. ``traceparent``: of the request; vLLM goes on with it. Raises Broke."""
        body = {
            "token_ids": tokens,
            # 0: the logprob of the sampled token alone.
            "sampling_params": {"n": 1, "max_tokens": max_tokens, "logprobs": 0, **self._sampling},
            "output_mode": "text",
            "stream": False,
            **self._more,
        }
        began_ms = self._clock_ms()
        said = await self._post("/inference/v1/generate", body, traceparent)
        try:
            return answers.read(
                said,
                engine=self._name,
                prompt_token_ids=tokens,
                began_ms=began_ms,
                ended_ms=self._clock_ms(),
                traceparent=traceparent,
            )
        except ValueError as error:
            raise Broke(str(error).partition(":")[0], str(error)) from None

    async def _post(self, path: str, body: dict[str, Any], traceparent: str = "") -> bytes:
        # An engine that has no collector complains of every trace.
        headers = {"traceparent": traceparent} if traceparent else {}
        try:
            async with asyncio.timeout(self._answer_s):
                found = await self._http.post(self._url + path, json=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            raise Broke("timeout", f"{path}: no answer in {self._answer_s:g} s") from None
        except httpx.ConnectError as error:
            raise Broke("no_connection", str(error)) from None
        except httpx.HTTPError as error:
            raise Broke("broke_off", repr(error)) from None
        if found.status_code == 200:
            return found.content
        refused = found.status_code in (400, 403, 404, 422)
        reason = "refused" if refused else "engine_error"
        detail = f"{path}: status {found.status_code}: {found.text[:300]}"
        raise Broke(reason, detail, final=refused)
