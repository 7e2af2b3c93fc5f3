"""The gateway's parts, put together from settings. Called by ``__main__`` and by tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
import time

from services.gateway import metrics
from services.gateway.app import Gateway
from services.gateway.capture import Capture
from services.gateway.engine import Engine
from services.gateway.fate import Fate
from services.gateway.fold import Fold
from services.gateway.link import Link
from services.gateway.settings import Settings
from services.gateway.spool import Spool
from services.gateway.tokenizer import Tokenizer
from services.gateway.tokens import Tokens, made_key
from tailrace import traces
from tailrace.errors import SettingsError
from tailrace.feedback_json import KINDS
from tailrace.log.base import Log
from tailrace.log.kafka import KafkaLog
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

_ORIGIN = re.compile(r"https?://[^/\s]+")


def build(
    settings: Settings,
    *,
    now_ms: Callable[[], int],
    log: Log | None = None,
    step: Callable[[int], None] = lambda number: None,
) -> tuple[Gateway, Fold | None]:
    """A gateway, and the thread that keeps its view of feedback (None without Redis).

    ``log``: None for the Kafka that the settings name. ``step``: see Capture and Gateway.

    Raises SettingsError without a tokenizer or for settings that cannot work, sqlite3.Error or
    OSError when the spool cannot be used (another gateway has it), InvalidRecord when a key's
    tenant is malformed.
    """
    for name, origins in (("origins", settings.origins), ("cors_origins", settings.cors_origins)):
        for origin in origins:
            if (origin != "*" or name != "origins") and _ORIGIN.fullmatch(origin) is None:
                raise SettingsError(
                    f"gateway: {name}: {origin!r} is not like https://app.example.com"
                )
    for metric, kind in settings.metrics.items():
        if kind not in KINDS:
            raise SettingsError(
                f"gateway: metrics.{metric}: {kind!r} is none of {', '.join(KINDS)}"
            )
    if not settings.keys.keys() >= set(settings.graders):
        raise SettingsError("gateway: graders: one of them is not in keys")
    tokenizer = Tokenizer(settings.model_dir)
    if log is None:
        log = KafkaLog(settings.kafka, delivery_timeout_s=settings.ack_s)
    kafka = log

    def connect() -> Writer:
        publish_schemas(kafka, prefix=settings.prefix)
        wire = Wire(settings.registry)
        return Writer(kafka.producer(), wire, prefix=settings.prefix, source="gateway")

    metrics.SPOOL_LIMIT_BYTES.set(settings.spool_bytes)
    folder = settings.state_dir / "gateway"
    spool = Spool(folder / "spool.sqlite", Wire(), max_bytes=settings.spool_bytes)
    gateway = Gateway(
        settings,
        tokenizer=tokenizer,
        engine=Engine(
            settings.engine_url,
            wait_s=settings.engine_wait_s,
            silence_s=settings.engine_silence_s,
            now_s=time.monotonic,
        ),
        capture=Capture(Link(connect), spool, queue_bytes=settings.queue_bytes, step=step),
        fate=Fate(
            settings.redis,
            prefix=settings.prefix,
            model=settings.model,
            ttl_s=settings.fate_ttl_s,
            now_s=time.monotonic,
        ),
        tokens=_tokens(settings, folder / "token.key", now_ms),
        traces=traces.start("gateway", settings.otlp_endpoint),
        now_ms=now_ms,
        step=step,
    )
    fold = None
    if settings.redis is not None:
        fold = Fold(
            kafka,
            lambda: Wire(settings.registry),
            settings.redis,
            prefix=settings.prefix,
            ttl_s=settings.fate_ttl_s,
        )
    return gateway, fold


def _tokens(settings: Settings, file: Path, now_ms: Callable[[], int]) -> Tokens:
    keys = [key.encode() for key in settings.token_keys] or [made_key(file)]
    try:
        return Tokens(keys, ttl_s=settings.token_ttl_s, now_ms=now_ms)
    except ValueError as error:
        raise SettingsError(f"gateway: token_keys, token_ttl_s: {error}") from None
