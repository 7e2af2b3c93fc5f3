"""What users do, drawn from a seed: turns and feedback of every kind, right and wrong.

Written straight to the log, as fast as it takes them. Nothing here knows what should become of it.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

from msgspec.structs import replace

from tailrace import events, ids, topics
from tailrace.stream import Writer

SESSIONS = [f"{tenant}:s{number}" for tenant in ("default", "acme") for number in range(4)]
_TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


class Traffic:
    """``times``: how often each record is written, one after the other."""

    def __init__(self, writer: Writer, seed: int, *, times: int = 1) -> None:
        self._writer = writer
        self._chance = random.Random(seed)
        self._times = times
        self._turns: list[str] = []
        self._said: list[events.Feedback] = []
        self._tokens = 0

    def some(self, number: int, flush: bool = True) -> None:
        """So many acts; with ``flush`` all are on the log when this returns."""
        for _ in range(number):
            act = self._chance.choices(
                (self._turn, self._feedback, self._again, self._change, self._session, self._wrong),
                (40, 30, 10, 10, 5, 10),
            )[0]
            act()
        if flush:
            self._writer.producer.flush(120.0)

    def _write(self, topic: topics.Topic, record: events.Struct) -> None:
        for _ in range(self._times):
            self._writer.write(topic, record)

    def _turn(self) -> None:
        session, chance = self._chance.choice(SESSIONS), self._chance
        interaction = ids.new_interaction(session, time.time_ns() // 1_000_000)
        self._turns.append(interaction)
        # Event times say nothing: the join goes by the log's.
        asked = json.dumps([{"role": "user", "content": chance.choice(("why", "how", "when"))}])
        event_time_ms = chance.choice((1, 1_700_000_000_000, _TEN_YEARS_MS * 6))
        prompt = events.Prompt(
            interaction_id=interaction,
            session_id=session,
            event_time_ms=event_time_ms,
            tenant=ids.tenant_of(session),
            learn=chance.random() < 0.9,
            content=events.PromptContent(messages=asked, prompt_token_ids=b"\0\0\0\0"),
        )
        records: list[tuple[topics.Topic, events.Struct]] = [(topics.PROMPTS, prompt)]
        for choice in range(chance.choice((1, 1, 1, 2))):
            output = events.Output(
                interaction_id=interaction,
                choice=choice,
                event_time_ms=event_time_ms,
                finish_reason="stop",
                content=events.OutputContent(message='{"content": "hi"}'),
            )
            records.append((topics.OUTPUTS, output))
        if chance.random() < 0.1:  # an orphan
            records.pop(chance.randrange(len(records)))
        if chance.random() < 0.3:  # before what it is about
            self._say(interaction, **self._value())
        chance.shuffle(records)
        for topic, record in records:
            self._write(topic, record)

    def _feedback(self) -> None:
        if self._turns:
            self._say(self._target(), choice=self._chance.choice((0, 0, 0, 1)), **self._value())

    def _session(self) -> None:
        session = self._chance.choice(SESSIONS)
        self._say(session, session_id=session, interaction_id=None, **self._value())

    def _again(self) -> None:
        """The same record once more, or its id with another word."""
        if self._said:
            said = self._chance.choice(self._said)
            if self._chance.random() < 0.5:
                said = replace(said, metric="other")
            self._write(topics.FEEDBACK, said)

    def _change(self) -> None:
        if not self._said:
            return
        said = self._chance.choice(self._said[-self._chance.choice((3, 1000)) :])
        subject = ids.subject_of(said.feedback_id)
        where: dict[str, Any] = {"replaces": said.feedback_id}
        if said.session_id is not None:
            where |= {"session_id": said.session_id, "interaction_id": None}
        if self._chance.random() < 0.5:
            self._say(subject, action="retract", kind=None, metric=None, **where)
        else:
            self._say(subject, **where, **self._value())

    def _wrong(self) -> None:
        """Of nobody, of another tenant, of another time, or not a number."""
        now_ms = time.time_ns() // 1_000_000
        past, future = now_ms - _TEN_YEARS_MS, now_ms + _TEN_YEARS_MS
        moment = self._chance.choice((now_ms, past, future))
        stranger = ids.new_interaction(self._chance.choice(SESSIONS), moment)
        tenant = self._chance.choice((ids.tenant_of(stranger), "mallory"))
        number = self._chance.choice((1.0, float("nan")))
        self._say(stranger, tenant=tenant, kind="number", metric="stars", number=number)

    def _target(self) -> str:
        if self._chance.random() < 0.5:
            return self._turns[-1]
        return self._chance.choice(self._turns)

    def _value(self) -> dict[str, Any]:
        values: tuple[dict[str, Any], ...] = (
            {"kind": "boolean", "metric": "thumbs", "boolean": self._chance.random() < 0.5},
            {"kind": "number", "metric": "stars", "number": self._chance.uniform(-1, 1)},
            {"kind": "category", "metric": "tone", "category": self._chance.choice("ab")},
            {
                "kind": "comment",
                "metric": "comment",
                "content": events.FeedbackContent(text="hm"),
            },
            {
                "kind": "demonstration",
                "metric": "demonstration",
                "content": events.FeedbackContent(text="so"),
            },
            {"kind": "preference", "metric": "choice", "preferred_over": "1"},
        )
        return self._chance.choice(values)

    def _say(self, subject: str, **fields: Any) -> None:
        self._tokens += 1
        given = {"interaction_id": subject, "tenant": ids.tenant_of(subject)} | fields
        said = events.Feedback(
            feedback_id=f"{subject}!f{self._tokens}",
            event_time_ms=self._chance.choice((1, _TEN_YEARS_MS * 6)),
            **given,
        )
        if fields.get("number") != fields.get("number"):
            self._write(topics.FEEDBACK, said)  # NaN is not equal to itself, nor said again
            return
        self._said.append(said)
        self._write(topics.FEEDBACK, said)
