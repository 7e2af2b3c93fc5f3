"""A step's span: of its own trace, linked to the requests whose answers it was made of."""

from __future__ import annotations

from tailrace import topics
from tailrace.stream import Writer
from tailrace.wire import Wire
from tests.traces.receiver import OTHER, TRACE, context_of, receiving
from tests.trainer.conftest import Mill
from tests.trainer.traffic import MODEL, trajectory


def test_a_step_is_linked_to_the_requests_of_its_answers(mill: Mill) -> None:
    producer = mill.log.producer()
    writer = Writer(producer, Wire(), source="rewards")
    for number in range(8):
        given = (TRACE, OTHER, None)[number % 3]
        writer.write(topics.TRAJECTORIES, trajectory(number), traceparent=given)
    producer.flush()
    producer.close()
    with receiving() as receiver:
        trainer = mill.trainer(otlp_endpoint=receiver.url)
        assert trainer.turn()
        mill.forget(trainer)
        trainer.close()
        [span] = receiver.spans(1)
    [step] = mill.steps()
    assert (span.service, span.name, span.parent) == ("tailrace-trainer", "step", "")
    assert sorted(span.links) == sorted([context_of(TRACE), context_of(OTHER)])
    assert span.trace not in TRACE + OTHER
    assert span.attributes["gen_ai.request.model"] == MODEL
    assert span.attributes["tailrace.step"] == step.step == 1
    assert span.attributes["tailrace.version"] == step.version
    assert span.attributes["tailrace.answers"] == 8
    assert span.attributes["tailrace.ess"] == step.figures["ess"]
