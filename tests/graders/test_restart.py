"""Where a grader begins again: no offset passes an answer without a word."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace import events, ids
from tests.graders.byhand import Scene
from tests.graders.scene import PARTITIONS, WIRE

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(0, 2)),
        st.tuples(st.just("say"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("commit"), st.integers(0, 4)),
        st.tuples(st.just("kill"), st.just(0)),
    ),
    max_size=40,
)


class Killed(Exception):
    """At a step of the commit."""


@settings(max_examples=300, deadline=None)
@given(actions=ACTIONS)
def test_no_offset_passes_an_answer_without_a_word(actions: list[tuple[str, int]]) -> None:
    """Whatever the order of turns, words, commits and kills, also within a commit."""
    scene = Scene()
    grade: dict[str, float] = {}
    refused: set[str] = set()
    late: list[str] = []
    deadly = 0

    def reached(step: int) -> None:
        if step == deadly:
            raise Killed

    scene.start(reached)
    for action, n in actions:
        scene.now_ms += 10
        if action == "turn" and n:
            grade[scene.room.turn()] = len(grade) / 100
        elif action == "turn":  # the output first
            late.append(scene.room.name())
            grade[late[-1]] = len(grade) / 100
            scene.room.say(late[-1])
        elif action in ("say", "fail") and scene.worker.items:
            at = n % len(scene.worker.items)
            name = scene.worker.items[at].interaction_id
            # A word stands: a cache sees to that, here this does.
            if action == "fail" and name not in scene.room.grades():
                refused.add(name)
                scene.worker.say(None, "timeout", at)
            else:
                scene.worker.say(grade[name], None, at)
        elif action == "step":
            scene.step(1)
            while late:
                scene.room.ask(late.pop())
        elif action == "kill":
            scene.start(reached)
        elif action == "commit":
            deadly = n
            try:
                scene.grader.commit()
            except Killed:
                deadly = 0
                scene.start(reached)
            deadly = 0
        check(scene, refused)
    for name in late:
        scene.room.ask(name)
    scene.step()
    while scene.worker.items:
        scene.worker.say(grade[scene.worker.items[0].interaction_id])
        scene.step()
    scene.grader.commit()
    check(scene, refused)
    assert scene.room.grades().keys() | refused == grade.keys()
    for said in scene.room.feedback():
        assert said.number == grade[str(said.interaction_id)]
    assert scene.grader.lag == 0


def check(scene: Scene, refused: set[str]) -> None:
    """Every output below the committed offset has its feedback, or was given up."""
    consumer = scene.log.consumer(group="tailrace-graders-polite")
    committed = consumer.committed("outputs", range(PARTITIONS))
    consumer.assign({("outputs", p): 0 for p in range(PARTITIONS)})
    known = scene.room.grades().keys() | refused
    for record in consumer.poll(0.0, max_records=10_000):
        if record.offset < committed.get(record.partition, 0):
            output = WIRE.decode(events.Output, record.value)
            assert output.interaction_id in known
            assert ids.is_interaction(output.interaction_id)
