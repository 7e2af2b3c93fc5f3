"""A judge: a model behind an OpenAI-compatible URL that is asked for a number.

In: items. Out: verdicts. ``concurrency`` requests at a time; 408, 429, 5xx, time-outs and broken
connections are tried again after a pause (0.5 s doubling, or what Retry-After says), anything else
is given up at once. What was asked once with the same words is not asked again. Made and closed by
:mod:`.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import json
import logging
import re
import threading
import time
from typing import Any
from weakref import WeakValueDictionary

import httpx

from services.graders import metrics, spans
from services.graders.cache import Cache, key_of
from services.graders.item import Item, Verdict
from services.graders.spec import Judge
from tailrace.traces import Traces

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_MAX_TOKENS = 16
_JSON = {"content-type": "application/json"}
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_SLOT = re.compile(r"\{(question|answer)\}")
_log = logging.getLogger(__name__)


class _Failed(Exception):
    def __init__(self, reason: str, *, again: bool = False, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after_s = reason, again, after_s


def asked(judge: Judge, item: Item) -> str:
    """The prompt with this item's question and answer in it, each as it stands."""
    words = {"question": item.question, "answer": item.answer}
    return _SLOT.sub(lambda slot: words[slot[1]], judge.prompt)


def score(judge: Judge, text: str) -> Verdict:
    """The first number of a judge's answer, mapped from its range to 0..1."""
    found = _NUMBER.search(text)
    if found is None:
        return Verdict(reason="no_number")
    low, high = judge.range
    number = float(found[0])
    if not low <= number <= high:
        return Verdict(reason="out_of_range")
    return Verdict((number - low) / (high - low))


class Judging:
    """A worker with one judge: takes items, answers each with a verdict, on its own thread.

    ``pause`` waits so many seconds (tests count them). ``traces``: None for none.
    """

    def __init__(
        self,
        name: str,
        judge: Judge,
        key: str | None,
        cache: Cache,
        answer: Callable[[Item, Verdict], None],
        crashed: Callable[[BaseException], None],
        pause: Callable[[float], Any] = asyncio.sleep,
        traces: Traces | None = None,
    ) -> None:
        self.room = judge.concurrency * 4
        """Items that it may be given before it has answered any."""
        self._name, self._judge, self._mark = name, judge, judge.hash()
        self._cache, self._answer, self._crashed = cache, answer, crashed
        self._pause, self._traces = pause, traces
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(judge.concurrency)
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._stop = asyncio.Event()
        self._client = httpx.AsyncClient(
            headers=_JSON | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        self._thread = threading.Thread(target=self._run, name=f"judge-{name}", daemon=True)
        self._thread.start()

    def give(self, item: Item) -> None:
        """Queue one item."""
        asyncio.run_coroutine_threadsafe(self._grade(item), self._loop)

    def close(self) -> None:
        """End at once; items without an answer are left so."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._cache.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_stopped())
        except BaseException as error:  # the thread has nobody above it
            self._crashed(error)

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _grade(self, item: Item) -> None:
        try:
            self._answer(item, await self._verdict(item))
        except Exception as error:  # a task has nobody above it
            self._crashed(error)

    async def _verdict(self, item: Item) -> Verdict:
        prompt = asked(self._judge, item)
        key = key_of(self._mark, prompt)
        lock = self._asking.setdefault(key, asyncio.Lock())
        # Of two that ask the same at once the second waits for the first: both must say what the
        # cache will say if they are asked again.
        async with lock, self._slots:
            known = self._cache.get(key)
            if known is not None:
                metrics.CACHED.labels(self._name).inc()
                return Verdict(known)
            judge = self._judge
            with spans.call(self._traces, self._name, judge.metric, [item], judge.model) as made:
                verdict = await self._ask(prompt)
                made.score, made.error = verdict.number, verdict.reason
            if verdict.number is None:
                return verdict
            self._cache.put(key, verdict.number)
            return Verdict(verdict.number, traceparent=made.traceparent)

    async def _ask(self, prompt: str) -> Verdict:
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, self._judge.attempts + 1):
            try:
                return score(self._judge, await self._request(prompt))
            except _Failed as error:
                if not error.again or attempt == self._judge.attempts:
                    _log.warning("judge failed grader=%s reason=%s", self._name, error.reason)
                    return Verdict(reason=error.reason)
                metrics.RETRIES.labels(self._name, error.reason).inc()
                wait_s = pause_s if error.after_s is None else error.after_s
                await self._pause(min(wait_s, _LONGEST_PAUSE_S))
                pause_s *= 2
        raise AssertionError("the last attempt ends the loop")

    async def _request(self, prompt: str) -> str:
        began = time.monotonic()
        body = {
            "model": self._judge.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
        }
        url = self._judge.url.rstrip("/") + "/chat/completions"
        try:
            async with asyncio.timeout(self._judge.timeout_s):
                # Escaped: an answer may hold half a surrogate pair, which is no UTF-8.
                reply = await self._client.post(url, content=json.dumps(body))
        except TimeoutError:
            raise _Failed("timeout", again=True) from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise _Failed("unreachable", again=True) from None
        finally:
            metrics.SECONDS.labels(self._name).observe(time.monotonic() - began)
        if reply.status_code in (408, 429) or reply.status_code >= 500:
            after_s = _seconds(reply.headers.get("retry-after"))
            raise _Failed(f"status_{reply.status_code}", again=True, after_s=after_s)
        if reply.status_code != 200:
            raise _Failed(f"status_{reply.status_code}")
        try:
            return str(reply.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _Failed("bad_reply") from None


def _seconds(text: str | None) -> float | None:
    """Retry-After where it is a number of seconds; a date is not read."""
    return float(text) if text and re.fullmatch(r"\d{1,6}(\.\d+)?", text) else None
