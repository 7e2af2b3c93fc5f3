"""Who has a version, since when, and what putting it in took: from the acks of the engines."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

from tailrace import topics, versions
from tailrace.errors import InvalidRecord
from tailrace.events import ModelAck, ModelUpdate, Release
from tailrace.log.base import Log, LogRecord
from tailrace.settings import Common
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.versions import Engine, Version
from tailrace.weights.history import Written, history
from tailrace.weights.lineage import Lineage
from tailrace.weights.trust import Trust
from tailrace.why.records import Serving
from tailrace.wire import Wire

HOUR_MS = 3_600_000


class State(NamedTuple):
    """What the log says of a model now."""

    lineage: Lineage
    release: Release | None
    served: int | None
    trained: int | None
    rows: dict[int, Version]
    engines: dict[str, Engine]
    """By name: heard in the last hour."""
    now_ms: int


def state(log: Log, common: Common, *, now_ms: int) -> State:
    """Read it. Raises LogError, SettingsError for a key file that is none."""
    wire = Wire(common.registry)
    lineage, releases = versions.read(log, wire, common)
    decoder = Decoder(log, wire, prefix=common.prefix)
    engines = versions.engines(log, decoder, common, now_ms=now_ms)
    served, trained = lineage.served(releases.newest), lineage.served(releases.followed)
    return State(
        lineage=lineage,
        release=releases.newest,
        served=None if served is None else served.version,
        trained=None if trained is None else trained.version,
        rows={row.version: row for row in versions.rows(lineage, trained, engines)},
        engines={engine.engine: engine for engine in engines},
        now_ms=now_ms,
    )


def strangers(log: Log, decoder: Decoder, common: Common, asked: Set[int]) -> frozenset[int]:
    """Those of ``asked`` that somebody else published: their manifests are there, and none
    counts by the rule of the audit (:mod:`tailrace.weights.history`). None without
    ``trusted_keys``. Raises LogError, SettingsError."""
    if not asked or not common.trusted_keys:
        return frozenset()
    trust = Trust(common.trusted_keys)
    written = []
    name = named(topics.MODEL_UPDATES, common.prefix)
    for record in read_all(log, name, committed_only=True):
        try:
            update = decoder.decode(record)
        except InvalidRecord:
            continue
        assert isinstance(update, ModelUpdate)
        if update.model == common.model and record.key == common.model.encode():
            written.append(Written(update, trust.signed(record.value, record.headers)))
    counted = {update.version for update in history(written)}
    return frozenset(one.update.version for one in written) & asked - counted


def serving(
    log: Log, decoder: Decoder, common: Common, now: State, version: int, since_ms: int
) -> list[Serving]:
    """Every engine that had a version or what was made from it within an hour of ``since_ms``, when
    it was published, or was heard in the last hour. By name."""
    told = _Told(now.lineage, version)
    last: dict[str, Engine] = {}
    for record, ack in _acks(log, decoder, common, since_ms, now.now_ms):
        told.hear(record, ack)
        last[ack.engine] = versions.heard(ack, record.time_ms, now.now_ms)
    return [
        Serving(
            engine=name,
            since_ms=told.since_ms.get(name),
            apply_ms=told.put_in[name].apply_ms if name in told.put_in else None,
            pause_ms=told.put_in[name].pause_ms if name in told.put_in else None,
            refused=told.refused.get(name),
            serves=engine.state != "refused" and told.has(engine.version),
            now=engine,
        )
        for name, engine in sorted((last | now.engines).items())
    ]


class _Told:
    """What engines said of one version."""

    def __init__(self, lineage: Lineage, version: int) -> None:
        self._lineage = lineage
        self._version = version
        self._made: dict[int, bool] = {}
        self.since_ms: dict[str, int] = {}
        self.put_in: dict[str, ModelAck] = {}
        self.refused: dict[str, str] = {}

    def has(self, version: int) -> bool:
        """Whether that is this one, or made from it."""
        if version not in self._made:
            chain = (update.version for update in self._lineage.chain(version))
            self._made[version] = version == self._version or self._version in chain
        return self._made[version]

    def hear(self, record: LogRecord, ack: ModelAck) -> None:
        if ack.state == "refused":
            if ack.version == self._version:
                self.refused[ack.engine] = ack.reason or "no reason"
            return
        if self.has(ack.version):
            self.since_ms.setdefault(ack.engine, record.time_ms)
        if ack.version == self._version and ack.apply_ms is not None:
            self.put_in.setdefault(ack.engine, ack)
            self.refused.pop(ack.engine, None)


def _acks(
    log: Log, decoder: Decoder, common: Common, since_ms: int, now_ms: int
) -> Iterator[tuple[LogRecord, ModelAck]]:
    """Those of the hour after a time, and those of the last hour."""
    name = named(topics.MODEL_ACKS, common.prefix)
    first, after = (log.offsets_at(name, since_ms + ms) for ms in (0, HOUR_MS))
    recent = log.offsets_at(name, now_ms - HOUR_MS)
    later = {partition: max(at, after[partition]) for partition, at in recent.items()}
    for starts, ends in ((first, after), (later, None)):
        for record in read_all(log, name, starts=starts, ends=ends):
            ack = versions.ack_of(record, decoder, common.model)
            if ack is not None:
                yield record, ack
