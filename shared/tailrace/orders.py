"""Orders about versions: written to ``control``, and followed until every engine has obeyed.

    order ──> control ──> (releases service) ──> releases ──> (engines) ──> model-acks

:class:`Orders` writes one and waits for the release that answers it, then for the acks of all
engines that are there. Nothing is asked but the log. Called by ``tailrace models``.
"""

from __future__ import annotations

from collections.abc import Callable
import time

import msgspec

from tailrace import topics
from tailrace.events import Command, ModelUpdate, Release
from tailrace.log.base import Log, LogRecord
from tailrace.settings import Common
from tailrace.stream import Decoder, Writer, publish_schemas
from tailrace.topics import named
from tailrace.versions import Engine, ack_of, heard, release_in_words
from tailrace.weights.lineage import Lineage
from tailrace.weights.releases import Releases, refusal
from tailrace.weights.subscriber import Subscriber
from tailrace.wire import Wire

ANSWER_S = 20.0
"""How long the releases service may take for its answer."""
_HEARD_MS = 3_600_000
_POLL_S = 0.1


class Outcome(msgspec.Struct, kw_only=True):
    """What became of an order."""

    ok: bool
    """Every engine that was heard within a minute serves what was ordered."""
    problem: str | None
    """Why not."""
    order: str
    """``control/<partition>/<offset>``."""
    release: Release | None
    seconds: float
    engines: list[Engine]


class Orders:
    """Gives orders for one model and watches them. A context manager; for one thread.

    ``clock``: seconds, monotonic; ``wall_ms``: the date. With ``trusted_keys`` only signed versions
    are there. Raises LogError.
    """

    def __init__(
        self,
        log: Log,
        common: Common,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._log, self._common = log, common
        self._clock, self._wall_ms = clock, wall_ms
        wire = Wire(common.registry)
        self._subscriber = Subscriber(
            log, wire, model=common.model, prefix=common.prefix, trust=common.trusted_keys
        )
        self._releases = Releases(log, wire, model=common.model, prefix=common.prefix)
        self._decoder = Decoder(log, wire, prefix=common.prefix)
        self._acks = named(topics.MODEL_ACKS, common.prefix)
        self._consumer = log.consumer()
        starts = log.offsets_at(self._acks, wall_ms() - _HEARD_MS)
        self._consumer.assign({(self._acks, partition): at for partition, at in starts.items()})
        self._said: dict[str, LogRecord] = {}
        """The newest ack of each engine."""
        self._refused: dict[tuple[str, int], tuple[str | None, bool]] = {}
        """Why an engine does not serve a version, and whether it said so since the order: what it
        refused before that, it may try again for it."""
        self._ordered = False

    def give(
        self,
        command: str,
        version: int | None = None,
        *,
        data: str | None = None,
        reason: str | None = None,
        principal: str | None = None,
        timeout_s: float = 90.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> Outcome:
        """Order ``rollback``, ``pin`` or ``follow`` and wait until it is obeyed, at most
        ``timeout_s``. ``say`` is told every change.

        Raises ValueError, with nothing ordered, for a version that is not there; LogError.
        """
        self._check(version)
        self._listen()
        self._ordered = True
        began_s = self._clock()
        offset = write(
            self._log,
            self._common,
            Command(
                model=self._common.model,
                event_time_ms=self._wall_ms(),
                command=command,
                version=version,
                reason=reason,
                principal=principal,
                parameters={"data": data} if data is not None else {},
            ),
        )
        outcome = Outcome(
            ok=False,
            problem=None,
            order=f"{topics.CONTROL.name}/0/{offset}",
            release=None,
            seconds=0.0,
            engines=[],
        )
        self._follow(outcome, offset, began_s, timeout_s, say)
        outcome.seconds = round(self._clock() - began_s, 2)
        outcome.ok = outcome.problem is None
        return outcome

    def close(self) -> None:
        """Let go of the log."""
        self._consumer.close()
        self._releases.close()
        self._subscriber.close()

    def __enter__(self) -> Orders:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check(self, version: int | None) -> None:
        self._subscriber.catch_up()
        if version is not None:
            whole(self._subscriber.lineage, version, self._common.model)

    def _follow(
        self,
        outcome: Outcome,
        offset: int,
        began_s: float,
        timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        """Until every engine is there, or it is known why not."""
        told: dict[str, str] = {}
        target, in_force = None, False
        while True:
            passed_s = self._clock() - began_s
            self._releases.poll(_POLL_S)
            self._listen()
            outcome.release = release = self._releases.answers.get(offset)
            outcome.engines = self._engines()
            if release is None:
                if passed_s > min(ANSWER_S, timeout_s):
                    outcome.problem = (
                        f"no releases service answered within {passed_s:.0f} s; the order stands "
                        f"({outcome.order}) and is obeyed when one runs"
                    )
                    return
                continue
            if (why := refusal(release)) is not None:
                outcome.problem = why
                return
            newest = self._releases.newest
            if _effect(newest) != _effect(release):
                outcome.problem = f"another order came after it: {release_in_words(newest)}"
                return
            self._subscriber.catch_up()
            lineage = self._subscriber.lineage
            if target is None:
                target = lineage.served(release)
            if not in_force:
                in_force = True
                say(f"{passed_s:5.1f} s  in force: {release_in_words(release)}")
            good = {u.version for u in lineage.line(release)}
            good = {v for v in good if target is not None and v >= target.version}
            left = []
            for engine in outcome.engines:
                there = engine.version in good and engine.state != "refused"
                line = f"engine {engine.engine}: {engine.state} version {engine.version}"
                if there and told.get(engine.engine) != line:
                    say(f"{passed_s:5.1f} s  {line}")
                    told[engine.engine] = line
                if not there and not engine.stale:
                    left.append(engine)
            if not left:
                if all(engine.stale for engine in outcome.engines):
                    outcome.problem = "it is in force, but no engine was heard for a minute"
                return
            found = [self._why_not(engine, target) for engine in left]
            if passed_s > timeout_s or all(final for _, final in found):
                names = ", ".join(why for why, _ in found)
                outcome.problem = f"it is in force, but not there yet: {names}"
                return

    def _why_not(self, engine: Engine, target: ModelUpdate | None) -> tuple[str, bool]:
        """What an engine is at instead of the target, and whether there is nothing to wait for.

        One that refuses goes on with an older version, and says so: the refusal counts."""
        state, version, reason, final = engine.state, engine.version, None, False
        if target is not None and (engine.engine, target.version) in self._refused:
            reason, final = self._refused[engine.engine, target.version]
            final = final or (state, version) == ("refused", target.version)
            state, version = "refused", target.version
        why = f": {reason}" if reason else ""
        return f"{engine.engine} ({state} {version}{why})", final

    def _listen(self) -> None:
        end = self._log.ends(self._acks)
        while True:
            for record in self._consumer.poll(0.0):
                ack = ack_of(record, self._decoder, self._common.model)
                if ack is not None:
                    self._said[ack.engine] = record
                    self._refused.pop((ack.engine, ack.version), None)
                    if ack.state == "refused":
                        self._refused[ack.engine, ack.version] = (ack.reason, self._ordered)
            if all(self._consumer.position(self._acks, p) >= at for p, at in end.items()):
                return

    def _engines(self) -> list[Engine]:
        now_ms = self._wall_ms()
        found = []
        for name in sorted(self._said):
            record = self._said[name]
            ack = ack_of(record, self._decoder, self._common.model)
            assert ack is not None
            found.append(heard(ack, record.time_ms, now_ms))
        return found


def _effect(release: Release | None) -> tuple[object, ...]:
    """What counts of a release: a later order that is refused leaves it as it is."""
    return () if release is None else (release.mode, release.live, release.withdrawn_to)


def write(log: Log, common: Common, command: Command) -> int:
    """Put an order on ``control``; the offset where it lies. Raises LogError."""
    publish_schemas(log, prefix=common.prefix)
    producer = log.producer()
    try:
        writer = Writer(producer, Wire(common.registry), prefix=common.prefix, source="cli")
        written = writer.write(topics.CONTROL, command)
        producer.flush()
        return written.result(0).offset
    finally:
        producer.close()


def whole(lineage: Lineage, version: int, model: str, note: str = "") -> ModelUpdate:
    """A version of the model itself. Raises ValueError, which says what to name instead, for one
    that is not there (``note``: why it may not be) or is an adapter."""
    if version in lineage.updates:
        return lineage.updates[version]
    adapter = lineage.adapters.get(version)
    if adapter is not None:
        raise ValueError(
            f"version {version} is an adapter, no version of {model}: engines with adapters serve "
            f"it as {model}@{version}, beside version {adapter.base_version}, which it was made "
            "for; name that one"
        )
    newest = "none is" if lineage.head is None else f"the newest is {lineage.head.version}"
    raise ValueError(f"no version {version} of {model}{note}: {newest}")
