"""What ``tailrace status`` says: processes, topics, versions, engines, what waits.

:func:`gather` reads a little of the log (manifests, releases, the last hour's acks and alarms) and
asks the processes of a local system for their health; :func:`in_words` is the same for people.
:mod:`tailrace.versions` says more about versions.
"""

from __future__ import annotations

from pathlib import Path
import time
import tomllib
from typing import Any
import urllib.error
import urllib.request

import msgspec

from tailrace import topics, versions
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Alarm
from tailrace.log.base import Log
from tailrace.settings import Common
from tailrace.stream import Decoder, read_all
from tailrace.topics import Topic, named
from tailrace.weights.lineage import Lineage
from tailrace.weights.releases import Releases
from tailrace.wire import Wire

_HOUR_MS = 3_600_000
_HEALTH_TIMEOUT_S = 2.0


def gather(log: Log, common: Common, *, now_ms: int | None = None) -> dict[str, Any]:
    """The state of the system that ``common`` names. Raises LogError when the broker is away."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    found: dict[str, Any] = {
        "kafka": common.kafka,
        "prefix": common.prefix,
        "model": common.model,
        "processes": processes(common.state_dir),
        "topics": {},
    }
    for topic in topics.TOPICS:
        name = named(topic, common.prefix)
        try:
            starts, ends = log.starts(name), log.ends(name)
        except LogError as error:
            found["topics"][topic.name] = {"error": str(error)}
            continue
        found["topics"][topic.name] = {
            "partitions": len(ends),
            "records": sum(ends.values()) - sum(starts.values()),
        }
    if all("error" in row for row in found["topics"].values()):
        raise LogError(f"no topic of tailrace on {common.kafka} (prefix {common.prefix!r})")
    wire = Wire(common.registry)
    decoder = Decoder(log, wire, prefix=common.prefix)
    lineage, releases = versions.read(log, wire, common)
    found["versions"] = _versions(log, common, lineage, releases)
    found["engines"] = {
        engine.engine: msgspec.to_builtins(engine)
        for engine in versions.engines(log, decoder, common, now_ms=now_ms)
    }
    found["alarms"] = [
        {"stream": event.stream, "state": event.state, "detector": event.detector}
        for event in _recent(log, decoder, topics.ALARMS, common, now_ms)
        if isinstance(event, Alarm)
    ]
    return found


def processes(state_dir: Path) -> dict[str, str]:
    """Health of each process that the settings in ``state_dir`` give a port: ready or why not.

    Empty where there is no such file: a system that was not started by the local runner.
    """
    try:
        document = tomllib.loads((state_dir / "settings.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    found = {}
    for name, table in document.items():
        if not isinstance(table, dict):
            continue
        port = table.get("port", table.get("metrics_port"))
        if port is not None:
            found[name] = _health(f"http://127.0.0.1:{port}/readyz")
    return found


def _health(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_HEALTH_TIMEOUT_S):
            return "ready"
    except urllib.error.HTTPError as error:
        with error:
            return error.read(200).decode(errors="replace").strip() or f"status {error.code}"
    except (OSError, ValueError) as error:
        return f"does not answer: {getattr(error, 'reason', error)}"


def _versions(log: Log, common: Common, lineage: Lineage, releases: Releases) -> dict[str, Any]:
    head, served = lineage.head, lineage.served(releases.newest)
    trained = lineage.served(releases.followed)
    found: dict[str, Any] = {
        "published": len(lineage.updates),
        "release": versions.release_in_words(releases.newest),
    }
    if head is None or served is None or trained is None:
        return found | {"head": None, "undecided": None}
    decided = {r.partition: r.end - len(r.held) for r in trained.ranges}
    ends = log.ends(named(topics.TRAJECTORIES, common.prefix))
    starts = log.starts(named(topics.TRAJECTORIES, common.prefix))
    return found | {
        "head": head.version,
        "served": served.version,
        "trained": trained.version,
        "kind": head.kind,
        "digest": head.digest,
        "created_ms": head.created_ms,
        "undecided": sum(end - max(decided.get(p, 0), starts[p]) for p, end in ends.items()),
    }


def _recent(log: Log, decoder: Decoder, topic: Topic, common: Common, now_ms: int) -> list[object]:
    name = named(topic, common.prefix)
    found: list[object] = []
    for record in read_all(log, name, starts=log.offsets_at(name, now_ms - _HOUR_MS)):
        try:
            found.append(decoder.decode(record))
        except InvalidRecord as error:
            found.append(error)
    return found


def in_words(found: dict[str, Any]) -> list[str]:
    """For people, some lines."""
    lines = [f"kafka {found['kafka']}  prefix {found['prefix']!r}  model {found['model']}"]
    for name, health in found["processes"].items():
        lines.append(f"  {name:<12} {health}")
    known = found["versions"]
    if known["head"] is None:
        lines.append("versions: none published")
    else:
        lines.append(
            f"versions: {known['published']} published, head {known['head']} "
            f"({known['kind']}, {str(known['digest'])[:12]}), "
            f"{known['undecided']} trajectories undecided"
        )
        lines.append(
            f"release: {known['release']}; served is {known['served']}, "
            f"trained on is {known['trained']}"
        )
    for engine in found["engines"].values():
        lines.append(versions.engine_in_words(msgspec.convert(engine, versions.Engine)))
    for alarm in found["alarms"][-5:]:
        lines.append(f"alarm {alarm['stream']}: {alarm['state']} ({alarm['detector']})")
    lines.append("records:")
    for name, row in found["topics"].items():
        lines.append(f"  {name:<14} {row.get('error') or row['records']}")
    return lines
