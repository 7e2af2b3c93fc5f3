"""The demo's users: a process of its own that knows the system by its public HTTP API only.

    python -m services.local.users --url http://127.0.0.1:8080/v1 --model smollm2-135m-instruct

Asks short questions through the official ``openai`` client (every other one streamed), judges each
answer by a hidden taste, and after some seconds votes on ``/v1/feedback`` under an id that it made
itself and keeps over retries. Load is bounded by requests in flight and by rate.

What happened goes to standard output as JSON lines (:class:`services.local.lines.Line`), which the
demo reads. SIGTERM or the death of its parent: no more questions, votes that wait are sent at once,
then it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from typing import Any
import uuid

import msgspec
import openai

from services.local.lines import Line
from services.local.questions import question
from services.local.tastes import MAX_TOKENS, TASTES, TEMPERATURE, Manner, Taste, vote

_TIMEOUT_S = 60.0
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Between attempts to send one vote."""
_LAST_ANSWERS_S = 30.0
"""How long answers under way may take once it stops."""


class Users:
    """A crowd with one taste. ``say`` gets every line."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        *,
        model: str,
        taste: Taste,
        manner: Manner,
        in_flight: int,
        rate_per_s: float,
        seed: int,
    ) -> None:
        self._client = client
        self._model = model
        self._taste = taste
        self._manner = manner
        self._slots = asyncio.Semaphore(in_flight)
        self._rate_per_s = rate_per_s
        self._chance = random.Random(seed)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """No more questions; votes that wait are sent now."""
        self._stop.set()

    async def run(self) -> None:
        """Ask until stopped, then see the last answers and votes through."""
        number = 0
        while not self._stop.is_set():
            await self._slots.acquire()
            if self._stop.is_set():
                break
            task = asyncio.create_task(
                self._interaction(number, random.Random(self._chance.random()))
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
            await self._pause(self._chance.expovariate(self._rate_per_s))
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_ANSWERS_S)
            for _ in late:
                error = f"not done {_LAST_ANSWERS_S:.0f} s after the end"
                say(Line(kind="failed", time_ms=now_ms(), what="chat", error=error))
        say(Line(kind="end", time_ms=now_ms()))

    async def _interaction(self, number: int, chance: random.Random) -> None:
        line = Line(kind="answer", time_ms=0, question=question(chance), streamed=number % 2 == 1)
        line.asked_ms = now_ms()
        try:
            await self._ask(line)
        except openai.OpenAIError as error:
            say(Line(kind="failed", time_ms=now_ms(), what="chat", error=_short(error)))
            await self._pause(1.0)
            return
        finally:
            self._slots.release()
        line.words = len(line.text.split())
        line.liked = self._taste.likes(line.text, line.finish == "stop")
        cast = vote(line.liked, self._manner, chance)
        line.silent = cast is None
        line.time_ms = now_ms()
        say(line)
        if cast is not None:
            await self._pause(cast.delay_s)
            await self._vote(line.interaction_id, cast.value, cast.wrong)

    async def _ask(self, line: Line) -> None:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": line.question}],
            "max_tokens": MAX_TOKENS,
            "temperature": TEMPERATURE,
            "extra_headers": {"x-tailrace-learn": "true"},
        }
        if not line.streamed:
            whole = await self._client.chat.completions.create(**request)
            line.interaction_id = whole.id
            line.text = whole.choices[0].message.content or ""
            line.finish = whole.choices[0].finish_reason or ""
            return
        async for part in await self._client.chat.completions.create(**request, stream=True):
            line.interaction_id = part.id
            for choice in part.choices:
                line.text += choice.delta.content or ""
                line.finish = choice.finish_reason or line.finish
        if not line.finish:
            raise openai.OpenAIError("the stream ended without a finish_reason")

    async def _vote(self, interaction: str, value: bool, wrong: bool) -> None:
        body = {
            "metric_name": "thumbs",
            "value": value,
            "inference_id": interaction,
            "feedback_id": uuid.uuid4().hex,
        }
        for attempt, pause_s in enumerate((*_PAUSES_S, 0.0), start=1):
            try:
                answer = await self._client.post("/feedback", body=body, cast_to=dict[str, Any])
            except openai.OpenAIError as error:
                status = getattr(error, "status_code", 503)
                last = attempt > len(_PAUSES_S) or (status < 500 and status != 429)
                if last:
                    say(Line(kind="failed", time_ms=now_ms(), what="feedback", error=_short(error)))
                    return
                await asyncio.sleep(pause_s)
                continue
            break
        line = Line(kind="vote", time_ms=now_ms(), interaction_id=interaction, value=value)
        line.wrong, line.attempts = wrong, attempt
        line.feedback_id = str(answer.get("feedback_id") or body["feedback_id"])
        say(line)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            pass


def say(line: Line) -> None:
    """One JSON line for the demo."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def now_ms() -> int:
    """Wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


async def _main(arguments: argparse.Namespace) -> None:
    client = openai.AsyncOpenAI(
        base_url=arguments.url, api_key=arguments.key, timeout=_TIMEOUT_S, max_retries=0
    )
    users = Users(
        client,
        model=arguments.model,
        taste=TASTES[arguments.taste],
        manner=msgspec.convert(json.loads(arguments.manner), Manner),
        in_flight=arguments.in_flight,
        rate_per_s=arguments.rate,
        seed=arguments.seed,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, users.stop)

    async def follow_parent(parent: int = os.getppid()) -> None:
        while os.getppid() == parent:
            await asyncio.sleep(0.5)
        users.stop()

    guard = asyncio.create_task(follow_parent())
    try:
        await users.run()
    finally:
        guard.cancel()
        await client.close()


def parser() -> argparse.ArgumentParser:
    """The options of this process."""
    found = argparse.ArgumentParser(prog="python -m services.local.users", description=__doc__)
    found.add_argument("--url", required=True, help="OpenAI base URL, /v1 included")
    found.add_argument("--model", required=True)
    found.add_argument("--key", default="demo", help="API key")
    found.add_argument("--taste", choices=sorted(TASTES), default="short")
    found.add_argument("--manner", default="{}", help="JSON: silent, wrong, delay_median_s, ...")
    found.add_argument("--in-flight", type=int, default=8)
    found.add_argument("--rate", type=float, default=8.0, help="questions a second at most")
    found.add_argument("--seed", type=int, default=0)
    return found


if __name__ == "__main__":
    asyncio.run(_main(parser().parse_args()))
