"""The one place that knows vLLM's admin HTTP API.

In: calls of the swap and the supervisor. Out: requests with the admin token. Every call has a
time-out and ends in one of four ways: a value, :class:`Refused` (vLLM said no), :class:`Unanswered`
(nobody knows whether it took effect; never repeat it before :meth:`Admin.weight_info` answered) or
:class:`Gone` (no process listens).

vLLM's core works its calls off in order: an answer of :meth:`Admin.weight_info` says that
everything sent before it has ended. Called by :mod:`services.engine.swap` and
:mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

HEADER = "x-tailrace-admin"
GUARD = "tailrace.plugins.admin.Guard"
TRANSFER = '{"backend": "tailrace"}'
_TOKENS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
_NOT_FINITE = "Out of range float values"
"""vLLM's answer (400) when the model gave a NaN: JSON has none."""


class Trouble(Exception):
    """An admin call did not do its work."""


class Refused(Trouble):
    """vLLM answered with an error."""

    def __init__(self, call: str, status: int, text: str) -> None:
        super().__init__(f"{call}: {status} {text[:300]}")
        self.status = status
        self.text = text


class Unanswered(Trouble):
    """No answer in time, or the connection broke: the call may or may not take effect."""


class Gone(Trouble):
    """Nobody listens on vLLM's port."""


class Admin(Protocol):
    """What a swap asks of vLLM. Each method raises Refused, Unanswered or Gone."""

    def pause(self) -> None:
        """Freeze running requests, drop every cached key and value."""

    def resume(self) -> None:
        """Go on, with the frozen requests re-prefilled under the weights that are there."""

    def start(self) -> None:
        """Open an update."""

    def update(self, path: str, digest: str) -> None:
        """Load the version that lies at ``path``."""

    def finish(self, label: str) -> None:
        """Close the update and set the label."""

    def label(self, label: str) -> None:
        """Set the label alone: same weights, another number."""

    def weight_info(self) -> str:
        """The label."""

    def is_paused(self) -> bool:
        """Is the scheduler frozen?"""

    def tokens(self) -> float:
        """Worked off since it began, of prompts and answers: told whatever its core is at."""

    def models(self) -> list[str]:
        """Names under which it serves, those of adapters included."""

    def load_adapter(self, name: str, path: str) -> None:
        """Serve the adapter in the folder ``path`` under a name of its own."""

    def unload_adapter(self, name: str) -> None:
        """Take no more requests for it."""

    def score(self, tokens: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first, given those before it, in nats or NaN."""


class HttpAdmin:
    """:class:`Admin` over HTTP. For one thread."""

    def __init__(
        self, url: str, token: str, *, model: str, call_s: float = 20.0, read_s: float = 5.0,
        score_s: float = 20.0,
    ) -> None:  # fmt: skip
        self._model = model
        self._call_s, self._read_s, self._score_s = call_s, read_s, score_s
        # A connection of its own for each call: vLLM closes one after an error it did not expect,
        # and the next call on it would seem unanswered.
        self._client = httpx.Client(
            base_url=url,
            headers={HEADER: token},
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def healthy(self) -> bool:
        """Does the server answer at all?"""
        try:
            self._call("GET", "/health", self._read_s)
        except Trouble:
            return False
        return True

    def missing(self) -> str | None:
        """What somebody else's vLLM lacks to be attached to, in words for who starts it; None:
        nothing."""
        try:
            self._call("GET", "/weight_info", self._read_s, token="")
            return f"its admin routes are open to all: start it with --middleware {GUARD}"
        except Refused:
            pass
        except Trouble as error:
            return str(error)
        try:
            self.weight_info()
            self._call("POST", "/init_weight_transfer_engine", self._call_s, {"init_info": {}})
        except Refused as error:
            if error.status == 403:
                return "engine.admin_token is not its TAILRACE_ENGINE_ADMIN_TOKEN"
            if error.status == 404:
                return f"no admin routes: start it with VLLM_SERVER_DEV_MODE=1 ({error})"
            return f"no plugin: start it with --weight-transfer-config '{TRANSFER}' ({error})"
        except Trouble as error:
            return str(error)
        return None

    def pause(self) -> None:
        """See Admin."""
        self._call("POST", "/pause?mode=keep&clear_cache=true", self._call_s)

    def resume(self) -> None:
        """See Admin."""
        self._call("POST", "/resume", self._call_s)

    def start(self) -> None:
        """See Admin."""
        self._call("POST", "/start_weight_update", self._call_s, {})

    def update(self, path: str, digest: str) -> None:
        """See Admin."""
        body = {"update_info": {"path": path, "digest": digest}}
        self._call("POST", "/update_weights", self._call_s, body)

    def finish(self, label: str) -> None:
        """See Admin."""
        self._call("POST", "/finish_weight_update", self._call_s, {"weight_version": label})

    def label(self, label: str) -> None:
        """See Admin."""
        self._call("POST", "/update_weight_version", self._call_s, {"new_version": label})

    def weight_info(self) -> str:
        """See Admin."""
        return str(self._call("GET", "/weight_info", self._read_s)["weight_version"])

    def is_paused(self) -> bool:
        """See Admin."""
        return bool(self._call("GET", "/is_paused", self._read_s)["is_paused"])

    def tokens(self) -> float:
        """See Admin."""
        text = self._ask("GET", "/metrics", self._read_s).text
        families = text_string_to_metric_families(text)
        return sum(s.value for f in families for s in f.samples if s.name in _TOKENS)

    def models(self) -> list[str]:
        """See Admin."""
        return [entry["id"] for entry in self._call("GET", "/v1/models", self._read_s)["data"]]

    def load_adapter(self, name: str, path: str) -> None:
        """See Admin."""
        body = {"lora_name": name, "lora_path": path}
        self._call("POST", "/v1/load_lora_adapter", self._call_s, body)

    def unload_adapter(self, name: str) -> None:
        """See Admin."""
        self._call("POST", "/v1/unload_lora_adapter", self._call_s, {"lora_name": name})

    def score(self, tokens: Sequence[int]) -> list[float]:
        """See Admin."""
        sampling = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
        body = {"model": self._model, "token_ids": list(tokens), "sampling_params": sampling}
        try:
            answer = self._call("POST", "/inference/v1/generate", self._score_s, body)
        except Refused as error:
            if _NOT_FINITE not in error.text:
                raise
            return [math.nan] * (len(tokens) - 1)
        entries = answer.get("prompt_logprobs") or []
        if len(entries) != len(tokens):
            raise Refused("score", 200, f"{len(entries)} logprobs for {len(tokens)} tokens")
        scored = zip(tokens[1:], entries[1:], strict=True)
        return [float(entry[str(token)]["logprob"]) for token, entry in scored]

    def _call(self, *request: Any, token: str | None = None) -> Any:
        try:
            return self._ask(*request, token=token).json()
        except ValueError:  # nothing, or words for people
            return None

    def _ask(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: Any = None,
        *,
        token: str | None = None,
    ) -> httpx.Response:
        headers = None if token is None else {HEADER: token}
        try:
            answer = self._client.request(
                method, path, json=body, timeout=timeout_s, headers=headers
            )
        except httpx.ConnectError as error:
            raise Gone(f"{path}: {error}") from None
        except httpx.TransportError as error:
            raise Unanswered(f"{path}: {type(error).__name__} {error}") from None
        if answer.status_code != 200:
            raise Refused(path, answer.status_code, answer.text)
        return answer
