"""Answers to grade, a log to lie on, and a judge that says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.graders.item import Item
from services.graders.spec import Judge
from tailrace import events, ids, topics
from tailrace.log.base import Log
from tailrace.stream import Writer, read_all
from tailrace.wire import Wire
from tests.gateway.fakevllm import Served

NOW_MS = 1_700_000_000_000
PARTITIONS = 2
WIRE = Wire()


def an_item(question: str = "why?", answer: str = "so", **given: Any) -> Item:
    fields: dict[str, Any] = {
        "interaction_id": ids.new_interaction("default:s", NOW_MS),
        "choice": 0,
        "partition": 0,
        "offset": 0,
        "time_ms": NOW_MS,
        "prompt": [{"role": "user", "content": question}],
        "completion": {"role": "assistant", "content": answer},
        "completion_ids": [1, 2],
        "columns": {},
    }
    return Item(**fields | given)


def a_judge(**given: Any) -> Judge:
    fields: dict[str, Any] = {
        "url": "http://127.0.0.1:1/v1",
        "model": "judge",
        "prompt": "{question} {answer} 1 to 5?",
        "range": (1.0, 5.0),
        "metric": "helpful",
    }
    return Judge(**fields | given)


class Room:
    """Session topics on a log, written and read through the library."""

    def __init__(self, log: Log, prefix: str = "") -> None:
        self.log, self.prefix, self.wire = log, prefix, WIRE
        log.create(topics.TOPICS, prefix=prefix, session_partitions=PARTITIONS)
        self.producer = log.producer()
        self.writer = Writer(self.producer, self.wire, prefix=prefix, source="test")
        self.turns = 0

    def turn(self, answer: str = "so", **given: Any) -> str:
        """A prompt and its output."""
        interaction = self.name()
        self.ask(interaction, **given)
        self.say(interaction, answer)
        return interaction

    def name(self) -> str:
        self.turns += 1
        return ids.new_interaction(f"default:s{self.turns}", NOW_MS + self.turns)

    def ask(self, interaction: str, **given: Any) -> None:
        fields: dict[str, Any] = {
            "learn": True,
            "content": events.PromptContent(messages='[{"role": "user", "content": "why?"}]'),
        }
        prompt = events.Prompt(
            interaction_id=interaction,
            session_id=ids.session_of(interaction),
            event_time_ms=NOW_MS,
            **fields | given,
        )
        self.writer.write(topics.PROMPTS, prompt)

    def say(self, interaction: str, answer: str = "so", **given: Any) -> None:
        message = json.dumps({"role": "assistant", "content": answer})
        fields: dict[str, Any] = {"content": events.OutputContent(message=message)}
        output = events.Output(interaction_id=interaction, event_time_ms=NOW_MS, **fields | given)
        self.writer.write(topics.OUTPUTS, output)

    def feedback(self) -> list[events.Feedback]:
        """All of it, as it lies on the log."""
        self.producer.flush()
        found = read_all(self.log, f"{self.prefix}feedback")
        return [self.wire.decode(events.Feedback, record.value) for record in found]

    def grades(self) -> dict[str, float | None]:
        """By interaction."""
        return {str(f.interaction_id): f.number for f in self.feedback()}

    def committed(self, group: str) -> int:
        """How many outputs a group committed."""
        consumer = self.log.consumer(group=f"{self.prefix}tailrace-graders-{group}")
        found = consumer.committed(f"{self.prefix}outputs", range(PARTITIONS))
        consumer.close()
        return sum(found.values())


class FakeJudge:
    """Says ``say``, or what ``scores`` has for a word of the prompt; keeps what it was asked."""

    def __init__(self) -> None:
        self.say = "4"
        self.scores: dict[str, str] = {}
        self.refuse: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers of the next requests."""
        self.hangs = False
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.at_once, self.most_at_once = 0, 0
        self.gather = 0
        """A request waits until so many are here."""
        self.app = Starlette(
            routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])]
        )

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["messages"][0]["content"]
        self.asked.append(prompt)
        self.keys.append(request.headers.get("authorization"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for _ in range(12000):
                if not self.hangs and self.most_at_once >= self.gather:
                    break
                await asyncio.sleep(0.005)
        finally:
            self.at_once -= 1
        if self.refuse:
            status, headers = self.refuse.pop(0)
            return JSONResponse({"error": "no"}, status, headers)
        said = next((text for word, text in self.scores.items() if word in prompt), self.say)
        choices = [{"index": 0, "message": {"role": "assistant", "content": said}}]
        return JSONResponse({"choices": choices})


@contextmanager
def serving(judge: FakeJudge) -> Iterator[str]:
    """Its base URL, as a spec has it."""
    served = Served(judge.app)
    try:
        yield f"http://127.0.0.1:{served.port}/v1"
    finally:
        served.stop()


def write_function(folder: Path, code: str, name: str = "rewards.py") -> str:
    """A file with a user's function."""
    file = folder / name
    file.write_text(code)
    return str(file)
