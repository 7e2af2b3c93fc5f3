"""A log with changes in it, for tests and for the children that they kill."""

from __future__ import annotations

from collections.abc import Iterator
import random

from tailrace import events, ids, topics
from tailrace.packing import pack_ids, pack_logprobs
from tailrace.topics import Topic

RECORDS = 2400
SHIFT_AT = 1200


def records(seed: int = 7) -> Iterator[tuple[Topic, events.Struct]]:
    """Answers, votes and rewards; from the middle on longer, surer, worse liked and worse."""
    chance = random.Random(seed)
    for number in range(RECORDS // 3):
        late = number >= SHIFT_AT // 3
        session = f"default:s{number % 50}"
        turn = f"{session}~{number:013d}"
        tokens = int(chance.gauss(60 if late else 30, 8))
        logprobs = [chance.gauss(-0.3 if late else -0.8, 0.1)] * tokens
        content = events.OutputContent(
            token_ids=pack_ids(range(tokens)), logprobs=pack_logprobs(logprobs)
        )
        yield topics.OUTPUTS, events.Output(interaction_id=turn, event_time_ms=1, content=content)
        yield (
            topics.FEEDBACK,
            events.Feedback(
                feedback_id=ids.feedback_of(turn, "t"),
                interaction_id=turn,
                event_time_ms=1,
                kind="boolean",
                boolean=chance.random() > (0.7 if late else 0.1),
            ),
        )
        yield (
            topics.TRAJECTORIES,
            events.Trajectory(
                trajectory_id=ids.trajectory(turn, 0, []),
                interaction_id=turn,
                event_time_ms=1,
                reward=chance.gauss(0.2 if late else 0.8, 0.2),
            ),
        )
