"""The loop: orders off ``control``, one release for each, in order.

    control ──> answer (pure) ──> releases
                   ^ model-updates: the versions that there are

Each release is one transaction and names the order that it answers, so what was answered is read
back from the log at the start: one release per order also after a kill -9 anywhere. Making a desk
fences the one before it, whose next release raises Fenced. Commit points, told to ``crash``:

    read  answered  written  committed

For one thread. Called by ``__main__``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
import logging
from pathlib import Path

from prometheus_client import Counter, Gauge

from services.releases.answer import ORDERS, Standing, answer
from tailrace import topics
from tailrace.errors import InvalidRecord, LogError, UpdateRefused
from tailrace.events import Command, Coordinates, ModelUpdate, Release
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, Writer, publish_schemas
from tailrace.topics import named
from tailrace.weights.releases import Releases, refusal
from tailrace.weights.retention import Retention
from tailrace.weights.subscriber import Subscriber
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

COMMANDS = Counter("tailrace_releases_commands", "Commands seen on control", ["command", "outcome"])
LIVE = Gauge("tailrace_releases_live_version", "What the release in force names; -1: no version")

_ACK_TIMEOUT_S = 30.0


class Desk:
    """Writes the releases of one model. Making one fences every older desk of it.

    ``trust``: files of public keys; versions that none of them signed are not there. Raises
    SettingsError for a key file that is none, LogError when the broker does not answer.
    """

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        model: str,
        prefix: str = "",
        trust: Iterable[Path | str] = (),
        wall_ms: Callable[[], int],
        crash: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._model, self._wall_ms, self._crash = model, wall_ms, crash
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._subscriber = Subscriber(log, wire, model=model, prefix=prefix, trust=trust)
        self._retention = Retention(log, self._decoder, prefix=prefix, place=None)
        publish_schemas(log, prefix=prefix)
        producer = log.producer(transactional_id=f"{prefix}tailrace-releases.{model}")
        self._writer = Writer(producer, wire, prefix=prefix, source="releases")
        # Fence first, read then: after this no older desk can answer what is not answered here.
        producer.begin()
        producer.abort()
        self._releases = Releases(log, wire, model=model, prefix=prefix)
        self._releases.poll()
        self._releases.close()
        LIVE.set(_live(self._releases.newest))
        control = named(topics.CONTROL, prefix)
        begin = max(self._releases.answers, default=-1) + 1
        self._consumer = log.consumer()
        self._consumer.assign({(control, 0): max(begin, log.starts(control)[0])})

    @property
    def newest(self) -> Release | None:
        """The release in force."""
        return self._releases.newest

    def turn(self, wait_s: float = 0.5) -> None:
        """Answer what is there. Raises Fenced, and LogError: then a new desk knows what was
        answered."""
        for record in self._consumer.poll(wait_s):
            self._take(record)

    def close(self) -> None:
        """Let go of the log."""
        self._consumer.close()
        self._subscriber.close()
        self._writer.producer.close()

    def _take(self, record: LogRecord) -> None:
        where = f"topic={record.topic} partition={record.partition} offset={record.offset}"
        try:
            command = self._decoder.decode(record)
        except InvalidRecord as error:
            COMMANDS.labels("", "invalid").inc()
            _log.warning("skipped %s: %s", where, error)
            return
        assert isinstance(command, Command)
        if command.model != self._model:
            COMMANDS.labels("", "other_model").inc()
        elif command.command not in ORDERS:
            COMMANDS.labels("", "not_ours").inc()
        else:
            self._crash("read")
            self._subscriber.catch_up()
            release = answer(
                command,
                Coordinates(
                    topic=topics.CONTROL.name, partition=record.partition, offset=record.offset
                ),
                self._subscriber.lineage,
                Standing(newest=self._releases.newest, followed=self._releases.followed),
                now_ms=self._wall_ms(),
                lost=self._lost,
            )
            self._crash("answered")
            self._write(release)
            why = refusal(release)
            COMMANDS.labels(command.command, "released" if why is None else "refused").inc()
            _log.warning(
                "%s command=%s version=%s principal=%s %s: %s",
                "released" if why is None else "refused",
                command.command,
                command.version,
                command.principal,
                where,
                command.reason if why is None else why,
            )

    def _write(self, release: Release) -> None:
        producer = self._writer.producer
        producer.begin()
        try:
            written = self._writer.write(topics.RELEASES, release)
            producer.flush()
            written.result(_ACK_TIMEOUT_S)
            self._crash("written")
        except BaseException:
            with contextlib.suppress(LogError):
                producer.abort()
            raise
        producer.commit()
        self._crash("committed")
        self._releases.add(release)
        LIVE.set(_live(release))

    def _lost(self, update: ModelUpdate) -> str | None:
        keyframe = self._subscriber.lineage.updates.get(update.keyframe_version or 0)
        try:
            if keyframe is not None and self._retention.holds(keyframe):
                return None
        except UpdateRefused as error:
            return f"cannot be looked for now, order it again: {error.detail}"
        return "cannot be made any more: its bytes are deleted"


def _live(release: Release | None) -> int:
    return -1 if release is None or release.live is None else release.live
