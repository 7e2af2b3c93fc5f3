"""Orders to the trainer: written to ``control``, and watched until the log shows that it obeyed.

    freeze, thaw   answered on ``alarms`` (stream ``trainer.frozen``), by the coordinates of the
                   order; a trainer that starts later answers the last one
    keyframe       a keyframe with a new number
    drain          the version in training has decided every trajectory that was there

:func:`give` writes one and waits. Nothing is asked but the log. Called by ``tailrace models``;
what is ordered about versions is :mod:`tailrace.orders`.
"""

from __future__ import annotations

from collections.abc import Callable
import time

import msgspec

from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Alarm, Command, ModelUpdate
from tailrace.log.base import Log
from tailrace.orders import write
from tailrace.settings import Common
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.weights.lineage import Lineage
from tailrace.weights.releases import Releases
from tailrace.weights.subscriber import Subscriber
from tailrace.wire import Wire

ORDERS = ("freeze", "thaw", "drain", "keyframe")
"""The commands that are the trainer's."""
_POLL_S = 0.2


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order."""

    ok: bool
    said: str
    """What happened, or why nothing has been seen to."""
    order: str
    """``control/<partition>/<offset>``."""
    version: int | None
    """The version that shows it; None of a freeze and a thaw."""
    seconds: float


class Watch:
    """The model's versions and the trainer's answers, from before an order on. A context manager;
    for one thread."""

    def __init__(self, log: Log, common: Common) -> None:
        wire = Wire(common.registry)
        self._log, self._prefix = log, common.prefix
        self._subscriber = Subscriber(
            log, wire, model=common.model, prefix=common.prefix, trust=common.trusted_keys
        )
        self._releases = Releases(log, wire, model=common.model, prefix=common.prefix)
        self._decoder = Decoder(log, wire, prefix=common.prefix)
        alarms = named(topics.ALARMS, common.prefix)
        self._consumer = log.consumer()
        self._consumer.assign({(alarms, p): end for p, end in log.ends(alarms).items()})
        self._subscriber.catch_up()
        self.lineage: Lineage = self._subscriber.lineage
        self.known = set(self.lineage.updates)
        """Versions that were there before."""
        self.ends = log.ends(named(topics.TRAJECTORIES, common.prefix))
        """Of ``trajectories``, before."""

    def answered(self, offset: int) -> bool:
        """Whether a trainer says that it obeyed the freeze or thaw that lies there."""
        for record in self._consumer.poll(_POLL_S):
            try:
                alarm = self._decoder.decode(record)
            except InvalidRecord:
                continue
            assert isinstance(alarm, Alarm)
            source = alarm.source
            if alarm.stream == "trainer.frozen" and source is not None and source.offset == offset:
                return True
        return False

    def keyframe(self) -> ModelUpdate | None:
        """A new one."""
        self._subscriber.poll(_POLL_S)
        new = [u for u in self.lineage.updates.values() if u.version not in self.known]
        return next((update for update in new if update.kind == "keyframe"), None)

    def undecided(self) -> tuple[int, ModelUpdate | None]:
        """How many of the trajectories that were there before the version in training has not
        decided, and that version."""
        self._subscriber.poll(_POLL_S)
        self._releases.poll()
        trained = self.lineage.served(self._releases.followed)
        ranges = {r.partition: r for r in (trained.ranges if trained is not None else ())}
        starts = self._log.starts(named(topics.TRAJECTORIES, self._prefix))
        left = 0
        for partition, end in self.ends.items():
            r = ranges.get(partition)
            begin = max(starts.get(partition, 0), r.end if r is not None else 0)
            left += max(0, end - begin)
            left += sum(offset < end for offset in (r.held if r is not None else ()))
        return left, trained

    def close(self) -> None:
        """Let go of the log."""
        self._consumer.close()
        self._releases.close()
        self._subscriber.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def give(
    log: Log,
    common: Common,
    command: str,
    *,
    reason: str | None = None,
    principal: str | None = None,
    timeout_s: float = 90.0,
    clock: Callable[[], float] = time.monotonic,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Done:
    """Order one of :data:`ORDERS` and wait until it is seen to be obeyed, at most ``timeout_s``.
    Raises LogError."""
    assert command in ORDERS
    began_s = clock()
    with Watch(log, common) as watch:
        order = Command(
            model=common.model,
            event_time_ms=wall_ms(),
            command=command,
            reason=reason,
            principal=principal,
        )
        offset = write(log, common, order)
        while True:
            said, version = _seen(watch, command, offset)
            passed_s = clock() - began_s
            if said is not None or passed_s > timeout_s:
                return Done(
                    ok=said is not None,
                    said=said or _missing(watch, command, passed_s),
                    order=f"{topics.CONTROL.name}/0/{offset}",
                    version=version,
                    seconds=round(passed_s, 2),
                )


def _seen(watch: Watch, command: str, offset: int) -> tuple[str | None, int | None]:
    """(what happened, the version that shows it); None: nothing yet."""
    if command == "keyframe":
        keyframe = watch.keyframe()
        if keyframe is None:
            return None, None
        return f"version {keyframe.version} is a keyframe", keyframe.version
    if command == "drain":
        left, trained = watch.undecided()
        version = None if trained is None else trained.version
        said = f"version {version} has decided every trajectory that was there"
        return None if left else said, version
    if not watch.answered(offset):
        return None, None
    return "nothing is trained until a thaw" if command == "freeze" else "training goes on", None


def _missing(watch: Watch, command: str, passed_s: float) -> str:
    if command == "keyframe":
        return f"no keyframe within {passed_s:.0f} s: a trainer that starts later makes none for it"
    if command == "drain":
        left, _ = watch.undecided()
        return (
            f"{left} trajectories are not decided after {passed_s:.0f} s: no trainer runs, it is in"
            " a step, or it is frozen (then it drains after the thaw)"
        )
    return (
        f"no trainer answered within {passed_s:.0f} s; the order stands and is obeyed after the "
        "step that is under way, or when one starts"
    )
