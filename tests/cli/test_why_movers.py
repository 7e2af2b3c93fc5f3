"""The answers that moved a version most are fetched side by side: one consumer that goes from spot
to spot waits for the broker at each."""

from __future__ import annotations

import threading

from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryConsumer
from tests.cli.river import River


class Consumer(MemoryConsumer):
    """Gives no trajectory before ten of them are asked for."""

    together: threading.Barrier

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        found = super().poll(timeout_s, max_records)
        if any(record.topic == "trajectories" for record in found):
            self.together.wait(20)
        return found


def test_ten_at_once(river: River) -> None:
    river.train(0)
    for number in range(12):
        river.say(river.ask(str(number), "b", session=f"acme:s{number}"), "a", number % 2 == 0)
    river.settle()
    river.train(1, 0)
    turns = river.turns()
    Consumer.together = threading.Barrier(10)
    river.log.consumer = (  # type: ignore[method-assign]
        lambda *, group=None, committed_only=False: Consumer(river.log, group, committed_only)
    )
    found = river.weights(1).movers
    assert [mover.interaction_id for mover in found] == turns[:10]
