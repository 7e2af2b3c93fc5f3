"""``python -m services.engine``: one engine, with the vLLM it runs or attached to one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import logging
import os
from pathlib import Path
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING

from services.engine.settings import Settings
from services.engine.vllm import Vllm, check_cores
from tailrace import process
from tailrace.errors import LogError, SettingsError
from tailrace.weights.trust import Trust

if TYPE_CHECKING:
    from services.engine.server import Server
    from tailrace.weights.store import Store
    from tailrace.wire import Wire

_AGAIN_S = 5.0
"""Between two attempts to reach a schema registry."""


def main(argv: list[str] | None = None, step: Callable[[str], None] = lambda point: None) -> int:
    """Run until SIGTERM. Exit code 2 for settings that cannot work.

    ``step`` is told every commit point of a swap; kill tests end the process there.
    """
    settings = process.start("engine", Settings, argv)
    if settings.model_folder is None:
        return _wrong("engine.model_folder: required")
    if settings.vllm_url is not None and settings.admin_token is None:
        return _wrong("engine.admin_token: required with engine.vllm_url")
    try:
        if settings.cores and settings.vllm_url is None:
            check_cores(settings.cores)
    except ValueError as error:
        return _wrong(f"engine.cores: {error}")
    try:
        Trust(settings.trusted_keys)  # now, not when vLLM has come up
    except SettingsError as error:
        return _wrong(f"trusted_keys: {error}")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it reports every request as news
    stop = process.stopping()

    from services.engine.acks import Acks
    from services.engine.adapters import Adapters
    from services.engine.admin import HttpAdmin
    from services.engine.engine import Engine
    from services.engine.hostcopy import warm
    from services.engine.peers import Peers
    from services.engine.server import Server
    from services.engine.slot import Slot
    from services.engine.swap import Swap
    from services.engine.turns import Turns
    from tailrace.events import ModelAck
    from tailrace.log.base import Position
    from tailrace.log.kafka import KafkaLog
    from tailrace.stream import Writer, publish_schemas
    from tailrace.topics import MODEL_ACKS
    from tailrace.weights.releases import Releases
    from tailrace.weights.subscriber import Subscriber

    own_dir = settings.state_dir / "engine" / settings.id
    own_dir.mkdir(parents=True, exist_ok=True)
    token = settings.admin_token or secrets.token_hex(32)
    url = settings.vllm_url or f"http://127.0.0.1:{settings.vllm_port}"
    admin = HttpAdmin(
        url, token, model=settings.model, call_s=settings.call_s, score_s=settings.canary_s
    )
    child = None
    if settings.vllm_url is None:
        child = Vllm(settings, token, os.environ, own_dir / "vllm.log")
    server = Server(
        child,
        admin.healthy,
        clock=time.monotonic,
        start_s=settings.start_s,
        missing=admin.missing if child is None else lambda: None,
    )
    server.check()  # vLLM takes half a minute: it starts while all else is made ready

    try:
        store = _version_0(settings.model_folder, settings.journal_mib * 1024 * 1024)
        warm(store.tensors)
    except (OSError, ValueError) as error:
        server.stop()
        return _wrong(f"engine.model_folder: {error}")
    engine: Engine | None = None
    process.expose(
        settings.metrics_port,
        lambda: "waiting for the schema registry" if engine is None else engine.reason(),
    )
    wire = _wire(settings.registry, server, stop)
    if wire is None:
        server.stop()
        return 0
    log = KafkaLog(settings.kafka)
    writer = Writer(log.producer(), wire, prefix=settings.prefix, source="engine")
    published = False

    def ack(record: ModelAck) -> Future[Position]:
        nonlocal published
        if not published:
            publish_schemas(log, prefix=settings.prefix)
            published = True
        return writer.write(MODEL_ACKS, record)

    def wall_ms() -> int:
        return time.time_ns() // 1_000_000

    acks = Acks(engine=settings.id, model=settings.model, write=ack, wall_ms=wall_ms)
    silent_s = 3 * settings.serving_ack_s
    turns = Turns(settings.id, slot_s=settings.turn_s, silent_s=silent_s)
    subscriber = Subscriber(
        log, wire, model=settings.model, prefix=settings.prefix, trust=settings.trusted_keys
    )
    engine = Engine(
        store=store,
        subscriber=subscriber,
        releases=Releases(log, wire, model=settings.model, prefix=settings.prefix),
        server=server,
        admin=admin,
        swap=Swap(
            admin, clock=time.monotonic, wait=time.sleep, settle_s=settings.settle_s, step=step
        ),
        slot=Slot([settings.shared_dir, own_dir], settings.id, patches=settings.patches),
        turns=turns,
        peers=Peers(
            log,
            wire,
            turns,
            model=settings.model,
            wall_ms=wall_ms,
            since_ms=int(silent_s * 1000),
            prefix=settings.prefix,
        ),
        adapters=Adapters(
            admin,
            subscriber,
            acks,
            model=settings.model,
            folder=own_dir / "adapters",
            clock=time.monotonic,
            enabled=settings.adapters,
        ),
        acks=acks,
        clock=time.monotonic,
        canary_tolerance=settings.canary_tolerance,
        serving_ack_s=settings.serving_ack_s,
        journal_bytes=settings.journal_mib * 1024 * 1024,
        step=step,
    )
    try:
        while not stop.is_set():
            engine.turn()
    finally:
        server.stop()
        try:
            writer.producer.close()
        except LogError as error:
            print(f"engine: {error}", file=sys.stderr)
        log.close()
    return 0


def _wire(registry: str | None, server: Server, stop: threading.Event) -> Wire | None:
    """Asked for again while the registry is away, since vLLM serves meanwhile; None: ``stop``."""
    from tailrace.wire import Wire

    while not stop.is_set():
        server.check()
        try:
            return Wire(registry)
        except LogError as error:
            logging.getLogger(__name__).warning("the log does not answer: %s", error)
            stop.wait(_AGAIN_S)
    return None


def _version_0(model_folder: Path, journal_bytes: int) -> Store:
    from tailrace.weights import folder
    from tailrace.weights.store import Store
    from tailrace.weights.tensors import digest

    tensors = folder.read(model_folder)
    files = folder.read_files(model_folder)
    return Store(tensors, 0, digest(tensors), files, journal_bytes=journal_bytes)


def _wrong(message: str) -> int:
    print(f"engine: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
