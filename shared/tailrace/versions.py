"""What versions of a model there are, which release is in force, and which engine serves what.

:func:`gather` reads manifests, releases and the last hour's acks off the log; :func:`in_words` is
the same for people. Called by ``tailrace models`` and ``tailrace status``.
"""

from __future__ import annotations

from collections.abc import Iterator
import time
from typing import Any

import msgspec

from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import ModelAck, ModelUpdate, Release
from tailrace.log.base import Log, LogRecord
from tailrace.settings import Common
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights.lineage import Lineage, label_only
from tailrace.weights.releases import Releases, refusal
from tailrace.weights.subscriber import Subscriber
from tailrace.wire import Wire

_HOUR_MS = 3_600_000
STALE_S = 60.0
"""An engine that was not heard for this long may be gone: it says twice in that time what it
serves."""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The last that an engine said."""

    engine: str
    version: int
    state: str
    """``applied`` or ``serving``: it serves ``version``. ``refused``: not that one, but the nearest
    that it was made from and that the engine can serve, of which it says ``applied`` itself; of a
    pinned version that is not known, it goes on with what it served."""
    reason: str | None
    seconds_ago: float
    """By the broker's clock."""
    stale: bool
    """Not heard for :data:`STALE_S`."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version."""

    version: int
    base: int | None
    kind: str
    """``keyframe``, ``delta``, ``adapter``, or ``label``: the weights of its base under a new
    number."""
    bytes: int | None
    created_ms: int
    digest: str | None
    steps: int
    figures: dict[str, float]
    """Of its last step."""
    withdrawn: bool
    """Neither trained on nor served: it was rolled back, or descends from what was."""
    engines: list[str]
    """Who serves it, by what they said last."""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """All there is of one model."""

    model: str
    release: Release | None
    """In force; None: never a word, the newest is served."""
    served: int | None
    """The version that engines are to serve."""
    trained: int | None
    """The version that training goes on from."""
    versions: list[Version]
    """In the order of the log."""
    engines: list[Engine]


def gather(log: Log, common: Common, *, now_ms: int | None = None) -> Models:
    """Everything that the log says now. With ``trusted_keys`` only signed versions are there.

    Raises LogError, SettingsError for a key file that is none.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    wire = Wire(common.registry)
    lineage, releases = read(log, wire, common)
    found = engines(log, Decoder(log, wire, prefix=common.prefix), common, now_ms=now_ms)
    served, trained = lineage.served(releases.newest), lineage.served(releases.followed)
    return Models(
        model=common.model,
        release=releases.newest,
        served=None if served is None else served.version,
        trained=None if trained is None else trained.version,
        versions=list(rows(lineage, trained, found)),
        engines=found,
    )


def read(log: Log, wire: Wire, common: Common) -> tuple[Lineage, Releases]:
    """The versions of the model and its releases, as far as there are any now."""
    subscriber = Subscriber(
        log, wire, model=common.model, prefix=common.prefix, trust=common.trusted_keys
    )
    releases = Releases(log, wire, model=common.model, prefix=common.prefix)
    try:
        subscriber.catch_up()
        releases.poll()
    finally:
        subscriber.close()
        releases.close()
    return subscriber.lineage, releases


def rows(lineage: Lineage, trained: ModelUpdate | None, found: list[Engine]) -> Iterator[Version]:
    """Every version, adapters included, by number. ``trained``: the one that training goes on from;
    ``found``: what the engines said last."""
    chain = set() if trained is None else {u.version for u in lineage.chain(trained.version)}
    known = [*lineage.updates.values(), *lineage.adapters.values()]
    for update in sorted(known, key=lambda update: update.version):
        first, last = update.first_step, update.last_step
        holds = [e.engine for e in found if e.version == update.version and e.state != "refused"]
        label = label_only(update) and update.bytes is None
        at = update.base_version if update.kind == "adapter" else update.version
        yield Version(
            version=update.version,
            base=update.base_version,
            kind="label" if label else update.kind or "",
            bytes=update.bytes,
            created_ms=update.created_ms,
            digest=update.digest,
            steps=0 if first is None or last is None else last - first + 1,
            figures=update.figures,
            withdrawn=at not in chain,
            engines=holds,
        )


def engines(log: Log, decoder: Decoder, common: Common, *, now_ms: int) -> list[Engine]:
    """What each engine of the model said last, if it said anything in the last hour. By name."""
    name = named(topics.MODEL_ACKS, common.prefix)
    last: dict[str, Engine] = {}
    for record in read_all(log, name, starts=log.offsets_at(name, now_ms - _HOUR_MS)):
        ack = ack_of(record, decoder, common.model)
        if ack is not None:
            last[ack.engine] = heard(ack, record.time_ms, now_ms)
    return [last[name] for name in sorted(last)]


def ack_of(record: LogRecord, decoder: Decoder, model: str) -> ModelAck | None:
    """The ack in a record; None: of another model, or none that can be read."""
    try:
        ack = decoder.decode(record)
    except InvalidRecord:
        return None
    assert isinstance(ack, ModelAck)
    return ack if ack.model in (None, model) else None


def heard(ack: ModelAck, time_ms: int, now_ms: int) -> Engine:
    """What an ack that was appended at ``time_ms`` says now."""
    ago_s = (now_ms - time_ms) / 1000
    return Engine(
        engine=ack.engine,
        version=ack.version,
        state=ack.state,
        reason=ack.reason,
        seconds_ago=round(ago_s, 1),
        stale=ago_s > STALE_S,
    )


def in_words(found: Models, *, limit: int | None = None, now_ms: int | None = None) -> list[str]:
    """For people: the release, then a line for each of the ``limit`` newest versions, newest last,
    then the engines."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    lines = [f"model {found.model}: {release_in_words(found.release)}"]
    if not found.versions:
        return [*lines, "no version is published"]
    lines[0] += f"; served is {_or_dash(found.served)}, trained on is {_or_dash(found.trained)}"
    lines.append("version   base  kind         bytes    age   reward  steps  answers")
    for v in found.versions[-limit:] if limit else found.versions:
        notes = ["withdrawn"] if v.withdrawn else []
        notes += [f"<- {', '.join(v.engines)}"] if v.engines else []
        row = (
            f"{v.version:>7} {_or_dash(v.base):>6}  {v.kind:<9} {size(v.bytes):>8} "
            f"{age((now_ms - v.created_ms) / 1000):>6} {_figure(v.figures, 'reward', '+.2f'):>8} "
            f"{v.steps or '-':>6} {_figure(v.figures, 'answers', '.0f'):>8}  {' '.join(notes)}"
        )
        lines.append(row.rstrip())
    return lines + [engine_in_words(engine) for engine in found.engines]


def release_in_words(release: Release | None) -> str:
    """What is in force."""
    if release is None or (release.mode != "pin" and release.live is None):
        text = "follows the newest version"
    elif release.mode == "pin":
        text = f"version {release.live} is pinned"
    else:
        text = f"goes on from version {release.live}"
        if release.withdrawn_to is not None and release.withdrawn_to != release.live:
            text += f", those up to {release.withdrawn_to} are withdrawn (data: {release.data})"
    if release is not None and release.reason and refusal(release) is None:
        text += f" ({release.reason})"
    return text


def engine_in_words(engine: Engine) -> str:
    """One engine."""
    why = f" ({engine.reason})" if engine.reason else ""
    stale = "; it may be gone" if engine.stale else ""
    return (
        f"engine {engine.engine}: {engine.state} version {engine.version}{why}, "
        f"{age(engine.seconds_ago)} ago{stale}"
    )


def size(count: int | None) -> str:
    """Bytes for people.

    >>> size(None), size(900), size(5_300_000)
    ('-', '0.9 kB', '5.3 MB')
    """
    if count is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def age(seconds: float) -> str:
    """A time span for people.

    >>> age(12.4), age(200), age(8000), age(400_000)
    ('12 s', '3 m', '2 h', '5 d')
    """
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _figure(figures: dict[str, float], name: str, form: str) -> str:
    return format(figures[name], form) if name in figures else "-"
