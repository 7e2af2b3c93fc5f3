"""What the local runner can be told."""

from __future__ import annotations

from pathlib import Path

from tailrace import topics
from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """Table ``[local]``, variables ``TAILRACE_LOCAL_*``.

    The same file may have tables for the services that are run; they are handed on as they are.
    """

    kafka: str = ""
    """Bootstrap servers of an existing Kafka; empty: an embedded one is run."""
    redis: str | None = None
    """redis:// URL of an existing Redis; None: an embedded one is run."""
    engine_url: str | None = None
    """An existing vLLM (with the plugin and the guard) to attach to; None: one is run."""
    engine_token: str | None = None
    """Opens the admin routes of the vLLM at ``engine_url``: its TAILRACE_ENGINE_ADMIN_TOKEN."""
    model_dir: Path | None = None
    """Hugging Face folder of version 0; None: SmolLM2-135M-Instruct is prepared."""
    cache_dir: Path = Path("~/.cache/tailrace")
    """Where prepared parts (jars, model) lie; several state directories share it."""
    kafka_port: int | None = None
    """Port of the embedded Kafka; None: a free one."""
    redis_port: int | None = None
    """Port of the embedded Redis; None: a free one."""
    session_partitions: int = topics.LOCAL_SESSION_PARTITIONS
    """Partitions of session topics, where they are made."""
    services: tuple[str, ...] = (
        *("engine", "gateway", "rewards", "drift", "trainer", "releases", "dashboard"),
    )
    """Services to run. ``graders`` may be among them where ``[graders] spec`` is set, ``rollouts``
    where ``[rollouts] tasks`` is."""
    start_timeout_s: float = 300.0
    """How long all may take until they are ready."""
    check_resources: bool = True
    """Refuse to start where disk or memory is short."""
