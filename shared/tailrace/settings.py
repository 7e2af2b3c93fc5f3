"""Settings: one frozen class per process, TOML < environment, unknown keys refused.

A settings file (``TAILRACE_SETTINGS=tailrace.toml`` or ``--settings``) has the common keys at its
top and one table per service::

    kafka = "127.0.0.1:9092"
    [gateway]
    port = 8080

The environment overrides: ``TAILRACE_KAFKA``, ``TAILRACE_GATEWAY_PORT``. A table or an array is
written there as in the file: ``TAILRACE_GRADERS_KEYS='{judge = "secret"}'``. Nothing below a
``__main__`` reads the environment.

A relative path in a settings file begins at the folder of that file; in the environment and on the
command line at the current directory. ``~`` is the home directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import tomllib
from typing import Any, TypeVar, get_origin
from urllib.parse import urlsplit

import msgspec

from tailrace.errors import SettingsError

SERVICES = (
    "gateway",
    "engine",
    "rewards",
    "graders",
    "drift",
    "trainer",
    "releases",
    "rollouts",
    "dashboard",
    "local",
    "cli",
)


PATHS = (
    *("state_dir", "cache_dir", "model_dir", "model_folder", "shared_dir", "spec"),
    *("signing_key", "trusted_keys", "tasks"),
)
"""Keys whose values are paths or arrays of them, in every table: the local runner writes a
settings file elsewhere, and knows no service's own settings."""

_OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every process wants to know. A service's Settings class inherits from it."""

    kafka: str = "127.0.0.1:9092"
    """Bootstrap servers."""
    prefix: str = ""
    """Put before every topic, consumer group, transactional id and app id."""
    registry: str | None = None
    """URL of a Confluent schema registry, or several with commas between; None: single-object
    encoding and the ``schemas`` topic."""
    redis: str | None = None
    """redis:// URL; None: what needs it answers 503."""
    model: str = "smollm2-135m-instruct"
    """Name under which the model is served and its topics are keyed."""
    state_dir: Path = Path(".tailrace")
    """Where a process keeps what must survive it; each service uses its own sub-folder. Like every
    path in a settings file it begins at that file's folder when it is relative."""
    trusted_keys: tuple[Path, ...] = ()
    """Files of public keys (``tailrace keys new``): whoever reads model updates then takes only
    those that one of them signed. Several while a key is being replaced; none: any update."""
    metrics_port: int | None = None
    """Port on loopback for /metrics, /healthz and /readyz of services without HTTP of their own.
    None: off."""
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector over HTTP (``http://127.0.0.1:4318``), where spans go;
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` names it too. None: no traces."""
    log_level: str = "INFO"


S = TypeVar("S", bound=Common)


def load(cls: type[S], service: str, environment: Mapping[str, str], file: Path | None = None) -> S:
    """The settings of one service.

    Raises SettingsError naming the key, for anything unknown, missing or of the wrong type.
    """
    assert service in SERVICES
    if file is None and "TAILRACE_SETTINGS" in environment:
        file = Path(environment["TAILRACE_SETTINGS"])
    values = _from_file(cls, service, file) if file is not None else {}
    values |= _from_environment(cls, service, environment)
    for field in msgspec.structs.fields(cls):
        # In the local runner's file too: it knows no types, and folds the environment in as text.
        if get_origin(field.type) in (dict, list, tuple) and isinstance(
            values.get(field.name), str
        ):
            values[field.name] = _toml(values[field.name], f"{service}: {field.name}")
    try:
        settings = msgspec.convert(values, cls, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{service}: {error}") from None
    # Here, since whoever uses it would find out only with the first record.
    for url in settings.registry.split(",") if settings.registry else ():
        if (wrong := _wrong_with_url(url, ("http", "https", "mock"))) is not None:
            raise SettingsError(f"{service}: registry: {wrong}")
    if settings.otlp_endpoint is not None:
        if (wrong := _wrong_with_url(settings.otlp_endpoint, ("http", "https"))) is not None:
            raise SettingsError(f"{service}: otlp_endpoint: {wrong}")
    return settings


def _toml(text: str, key: str) -> Any:
    """A value as TOML has it. Raises SettingsError without the text: it may be a secret."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{key}: no value of TOML: {error}") from None
    if len(document) != 1:
        raise SettingsError(f"{key}: more than one value")
    return document["value"]


def _wrong_with_url(url: str, schemes: tuple[str, ...]) -> str | None:
    """What is wrong, without the URL itself: it may hold a password."""
    try:
        parts = urlsplit(url.strip())
        if parts.port == 0:
            return "port 0"
    except ValueError as error:
        return str(error)
    if parts.scheme not in schemes:
        return "must begin with http:// or https://"
    if not parts.hostname or any(letter.isspace() for letter in parts.netloc):
        return "names no host"
    return None


def read(file: Path) -> dict[str, Any]:
    """A settings file as it stands, its relative paths made absolute. Raises SettingsError."""
    file = file.expanduser()
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from None
    return anchored(document, file.absolute().parent)


def anchored(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The document, or one table of it, with the paths that are relative under ``folder``.

    >>> anchored({"model": "m", "trainer": {"model_dir": "m"}}, Path("/etc/tailrace"))
    {'model': 'm', 'trainer': {'model_dir': '/etc/tailrace/m'}}
    """
    made: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and key in SERVICES:
            made[key] = anchored(value, folder)
        elif isinstance(value, str) and key in PATHS:
            made[key] = str(folder / Path(value).expanduser())
        elif isinstance(value, list) and key in PATHS:
            made[key] = [anchored({key: each}, folder)[key] for each in value]
        else:
            made[key] = value
    return made


def _from_file(cls: type[Common], service: str, file: Path) -> dict[str, Any]:
    document = read(file)
    table: dict[str, Any] = document.get(service, {})
    for key, value in document.items():
        if isinstance(value, dict) and key in SERVICES:
            continue
        if key not in Common.__struct_fields__:
            raise SettingsError(f"{file}: unknown key {key!r}")
    for key in table:
        if key not in cls.__struct_fields__:
            raise SettingsError(f"{file}: unknown key {service}.{key}")
    return {k: v for k, v in document.items() if k in Common.__struct_fields__} | table


def _from_environment(
    cls: type[Common], service: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if not name.startswith("TAILRACE_") or name == "TAILRACE_SETTINGS":
            continue
        key = name.removeprefix("TAILRACE_").lower()
        owner, _, own_key = key.partition("_")
        if owner == service and own_key in cls.__struct_fields__:
            values[own_key] = value
        elif owner == service:
            raise SettingsError(f"{name}: unknown key {service}.{own_key}")
        elif key in Common.__struct_fields__:
            values.setdefault(key, value)
        elif owner not in SERVICES:
            raise SettingsError(f"{name}: unknown key {key!r}")
    if environment.get(_OTLP):  # empty counts as not set, by OpenTelemetry's rules
        values.setdefault("otlp_endpoint", environment[_OTLP])
    return values


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"cannot read a {kind.__name__} from {value!r}")
