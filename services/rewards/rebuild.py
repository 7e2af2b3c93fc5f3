"""``python -m services.rewards.rebuild``: forget what the workers know, so that they read it again.

For when the table's changelog was lost or is not to be trusted, but the inputs are kept. All
workers must be stopped (one with ``instance`` is in the group for 10 s more). It drops the group's
offsets and empties the changelog; the workers that are started after it read from the low
watermarks and come to the same trajectories and receipts, with the same ids, which the trainer
knows (``duplicate``). The reward spec must be the one from before: under another one the same ids
would stand for other rewards. Feedback whose prompt or output retention has deleted meanwhile is
receipted once more, as an orphan.
"""

from __future__ import annotations

import logging
import sys

from services.rewards.settings import Settings
from services.rewards.table import CHANGELOG
from tailrace import process
from tailrace.errors import LogError
from tailrace.log.base import Log
from tailrace.log.kafka import KafkaLog
from tailrace.stream import read_all
from tailrace.topics import named

GROUP = "tailrace-rewards"
_BATCH = 10_000
logger = logging.getLogger(__name__)


def rebuild(log: Log, prefix: str) -> int:
    """Forget; gives how many values were dropped.

    Raises LogError while a worker is in the group, and then nothing is changed.
    """
    log.forget_group(prefix + GROUP)
    changelog = named(CHANGELOG, prefix)
    # Kafka does not delete records of a topic that is only compacted: each value gets a tombstone.
    live: set[tuple[int, bytes]] = set()
    for record in read_all(log, changelog):
        place = (record.partition, record.key or b"")
        (live.discard if record.value is None else live.add)(place)
    producer = log.producer()
    try:
        for number, (partition, key) in enumerate(live, 1):
            producer.append(changelog, None, key=key, partition=partition)
            if number % _BATCH == 0:
                producer.flush()
        producer.flush()
    finally:
        producer.close()
    return len(live)


def main() -> int:
    settings = process.start("rewards", Settings)
    log = KafkaLog(settings.kafka)
    try:
        dropped = rebuild(log, settings.prefix)
    except LogError as error:
        print(f"rewards: {error}", file=sys.stderr)
        return 1
    finally:
        log.close()
    logger.info("forgotten values=%d", dropped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
