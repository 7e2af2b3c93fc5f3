"""Everything that is decided or made before the first process starts.

Checks memory and disk, prepares jars and model, picks ports, and writes the children's settings
file. Called by :mod:`services.local.runner`, which holds the state directory's lock meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
import secrets

import msgspec

from services.local import document, jars, model, ports, preflight
from services.local.composition import Addresses, compose
from services.local.settings import Settings
from tailrace.errors import SettingsError

Say = Callable[[str, str], None]
"""Takes who speaks (``runner``, ``prepare``) and one line for people."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner starts from."""

    addresses: Addresses
    jars: Path | None
    """Folder of Kafka's jars; None where an existing Kafka is used."""
    settings_file: Path


def prepare(
    settings: Settings,
    user: Mapping[str, object],
    *,
    state_dir: Path,
    say: Say,
    pause: Callable[[float], None],
) -> Prepared:
    """Do it all; what is made already is used again.

    ``pause(seconds)`` waits; what it or ``say`` raises ends the preparation. Raises
    preflight.Shortage, jars.PreparationError, ValueError (a port is taken) or SettingsError.
    """
    cache_dir = settings.cache_dir.expanduser().absolute()

    def progress(text: str) -> None:
        say("prepare", text)

    _check(settings, state_dir, cache_dir, say)
    jar_folder = None if settings.kafka else jars.prepare(cache_dir, progress)
    if settings.model_dir is None:
        model_dir = model.prepare(cache_dir, progress, pause)
    else:
        model_dir = settings.model_dir.expanduser().absolute()
        if not (model_dir / "config.json").exists():
            raise SettingsError(f"local.model_dir: {model_dir} is no model folder")
    addresses = _addresses(settings, user, state_dir / "ports.json")
    decided = compose(settings, addresses, model_dir, _secret(state_dir / "admin-token"))
    settings_file = state_dir / "settings.toml"
    document.write(of_children(decided, user), settings_file)
    return Prepared(addresses=addresses, jars=jar_folder, settings_file=settings_file)


def of_children(decided: document.Document, user: Mapping[str, object]) -> document.Document:
    """The settings of all children: what was decided, and what the user set over it.

    Rollouts fill as many of vLLM's slots as it has here, unless the user says otherwise.
    """
    # What the runner decides of the common keys is not the user's to override for the children.
    kept = {k: v for k, v in user.items() if k not in ("kafka", "redis", "state_dir", "local")}
    engine = kept.get("engine")
    if "rollouts" in decided and isinstance(engine, Mapping) and "max_num_seqs" in engine:
        slots = {"rollouts": {"max_num_seqs": engine["max_num_seqs"]}}
        decided = document.merge(decided, slots)
    return document.merge(decided, kept)


def _check(settings: Settings, state_dir: Path, cache_dir: Path, say: Say) -> None:
    parts = [s for s in settings.services if s != "engine" or not settings.engine_url]
    parts += [] if settings.kafka else ["kafka"]
    parts += [] if settings.redis else ["redis"]
    try:
        lines = preflight.check(
            parts,
            state_dir=state_dir,
            cache_dir=cache_dir,
            model=settings.model_dir is None and not model.folder(cache_dir).exists(),
            jars=not settings.kafka and not jars.folder(cache_dir).exists(),
        )
    except preflight.Shortage as error:
        if settings.check_resources:
            raise
        lines = [str(error)]
    for line in lines:
        say("runner", line)


def _addresses(settings: Settings, user: Mapping[str, object], memory: Path) -> Addresses:
    wanted = {"gateway": ("gateway", "port"), "vllm": ("engine", "vllm_port")}
    wanted |= {f"{s}_metrics": (s, "metrics_port") for s in settings.services}
    if "dashboard" in settings.services:
        wanted["dashboard_metrics"] = ("dashboard", "port")
    fixed: dict[str, int | None] = {}
    for name, (table, key) in wanted.items():
        values = user.get(table)
        if isinstance(values, dict) and key in values:
            try:
                fixed[name] = int(values[key])
            except (TypeError, ValueError):
                raise SettingsError(f"{table}.{key}: {values[key]!r} is no port") from None
    names = list(wanted)
    if not settings.kafka:
        names += ["kafka", "kafka_controller"]
        fixed["kafka"] = settings.kafka_port
    if not settings.redis:
        names.append("redis")
        fixed["redis"] = settings.redis_port
    return Addresses.of(settings, ports.assign(names, memory, fixed))


def _secret(file: Path) -> str:
    if not file.exists():
        part = file.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(secrets.token_hex(16))
        part.rename(file)
    return file.read_text()
