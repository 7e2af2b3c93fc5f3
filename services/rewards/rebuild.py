"""``python -m services.rewards.rebuild``: forget what the workers know, so that they read it again.

For when the table's changelog was lost or is not to be trusted, but the inputs are kept. All
workers must be stopped. It drops the group's offsets and empties the changelog; the workers that
are started after it read from the low watermarks and come to the same trajectories and receipts,
with the same ids, which the trainer knows (``duplicate``). The reward spec must be the one from
before: under another one the same ids would stand for other rewards.
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
from tailrace.topics import named

GROUP = "tailrace-rewards"
logger = logging.getLogger(__name__)


def rebuild(log: Log, prefix: str) -> int:
    """Forget; gives how many changelog records were dropped.

    Raises LogError while a worker is in the group, and then nothing is changed.
    """
    log.forget_group(prefix + GROUP)
    changelog = named(CHANGELOG, prefix)
    starts, ends = log.starts(changelog), log.ends(changelog)
    log.delete_before(changelog, ends)
    return sum(ends[partition] - start for partition, start in starts.items())


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
    logger.info("forgotten changelog_records=%d", dropped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
