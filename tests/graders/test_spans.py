"""The span of a grader's call: linked to the answers that it was about, and named by the feedback
that came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.graders.pairing import Pairing
from tailrace import events, topics
from tailrace.log.memory import MemoryLog
from tailrace.stream import Writer, read_all
from tests.gateway.fakevllm import wait_until
from tests.graders.scene import WIRE, FakeJudge, Room, serving, write_function
from tests.graders.test_app import GOOD, function, graded, running
from tests.traces.receiver import OTHER, TRACE, Receiver, context_of, receiving


class Traced(Room):
    """Each turn's records have the next of these traces."""

    def turn(self, answer: str = "so", **given: object) -> str:
        plain = self.writer
        trace = (TRACE, OTHER)[self.turns % 2]
        writer = Writer(self.producer, WIRE, source="gateway")
        self.writer = writer
        write = writer.write
        writer.write = lambda *a, **k: write(*a, **k, traceparent=trace)  # type: ignore[method-assign]
        try:
            return super().turn(answer, **given)
        finally:
            self.writer = plain

    def traces(self) -> set[str]:
        """Of the feedback."""
        records = read_all(self.log, topics.FEEDBACK.name)
        return {context_of(record.headers["traceparent"].decode()) for record in records}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def room() -> Traced:
    return Traced(MemoryLog())


def test_a_function_s_call_is_linked_to_all_of_its_answers(
    tmp_path: Path, room: Traced, receiver: Receiver
) -> None:
    write_function(tmp_path, GOOD, "good.py")
    turns = [room.turn(), room.turn()]
    with running(tmp_path, room.log, function("good"), otlp_endpoint=receiver.url):
        wait_until(lambda: graded(room, "good") == 2, "2 grades")
    spans = receiver.spans(1)
    assert {(s.service, s.name, s.parent) for s in spans} == {
        ("tailrace-graders", "grade good", "")
    }
    linked = {link for span in spans for link in span.links}
    assert linked == {context_of(TRACE), context_of(OTHER)}
    assert room.traces() == {span.context for span in spans}
    assert sum(span.attributes["tailrace.answers"] for span in spans) == 2
    assert {span.attributes["gen_ai.evaluation.name"] for span in spans} == {"good"}
    of_one = {s.attributes["gen_ai.response.id"] for s in spans if len(s.links) == 1}
    assert of_one <= {*turns}


def test_a_judge_s_call_says_which_model_was_asked_and_what_it_said(
    tmp_path: Path, room: Traced, receiver: Receiver
) -> None:
    judge = FakeJudge()
    judge.scores = {"bad": "no idea"}
    turn, bad = room.turn("so"), room.turn("bad")
    with serving(judge) as url:
        text = f'[judges.kind]\nurl = "{url}"\nmodel = "j"\nprompt = "{{answer}}"\nrange = [1, 5]\n'
        with running(tmp_path, room.log, text, otlp_endpoint=receiver.url):
            wait_until(lambda: room.committed("kind") == 2, "both")
    spans = {span.attributes["gen_ai.response.id"]: span for span in receiver.spans(2)}
    assert spans.keys() == {turn, bad}
    good, failed = spans[turn], spans[bad]
    assert good.links == [context_of(TRACE)] and failed.links == [context_of(OTHER)]
    assert room.traces() == {good.context}
    assert good.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "j",
        "gen_ai.evaluation.name": "kind",
        "gen_ai.evaluation.score.value": 0.75,
        "gen_ai.response.id": turn,
        "tailrace.choice": 0,
        "tailrace.grader": "kind",
        "tailrace.answers": 1,
    }
    assert failed.failed and failed.attributes["error.type"] == "no_number"


def test_an_answer_that_waited_for_its_prompt_keeps_its_trace(room: Traced) -> None:
    room.turn()
    [prompt], [output] = (list(read_all(room.log, topic)) for topic in ("prompts", "outputs"))
    pairing = Pairing()
    asked = room.wire.decode(events.Prompt, prompt.value)
    said = room.wire.decode(events.Output, output.value)
    assert pairing.prompt_of(output, said, 0) is None
    [waiting] = pairing.take_prompt(prompt, asked)
    assert waiting.record.headers == {"traceparent": TRACE.encode()}
