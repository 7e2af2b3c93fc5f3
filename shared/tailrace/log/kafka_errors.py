"""What librdkafka says, in tailrace's words. For :mod:`tailrace.log.kafka` and its producer."""

from __future__ import annotations

import logging
from typing import NoReturn

import confluent_kafka as ck

from tailrace.errors import Broken, Fenced, LogError, TooLarge

_log = logging.getLogger(__name__)
REQUEST_TIMEOUT_S = 30.0
"""How long one request to the cluster may take."""
_FENCED = (
    ck.KafkaError._FENCED,
    ck.KafkaError.PRODUCER_FENCED,
    ck.KafkaError.INVALID_PRODUCER_EPOCH,
)


def error_of(error: ck.KafkaError, what: str) -> LogError:
    """The exception for an error; ``what`` was being done."""
    kind = LogError
    if error.code() in _FENCED:
        kind = Fenced
    elif error.fatal() or error.code() == ck.KafkaError._FATAL:
        kind = Broken
    elif error.code() == ck.KafkaError.MSG_SIZE_TOO_LARGE:
        kind = TooLarge
    return kind(f"{what}: {error.str()} ({error.name()})")


def report(error: ck.KafkaError) -> None:
    """Log what goes wrong between two calls: a broker that is away, a name that is unknown.

    Given to librdkafka in place of its own lines on standard error, which would end up in the
    middle of a terminal view.
    """
    _log.warning("kafka client error=%s detail=%s", error.name(), error.str())


def refuse(error: ck.KafkaException, what: str) -> NoReturn:
    """Raise the exception for what librdkafka raised."""
    raise error_of(error.args[0], what) from None
