"""What the runner decides for its children: addresses, settings tables, places on the cores.

Pure: nothing here starts or writes anything. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import os
from pathlib import Path

import msgspec

from services.local.document import Document
from services.local.placement import omp_binding, place, serving
from services.local.processor import own_dtype
from services.local.programs import Program
from services.local.settings import Settings
from tailrace.errors import SettingsError

REWARD_SPEC = Path(__file__).parent / "rewards.toml"
"""Of whoever names none: the reward processor's own waits minutes for what people say."""
_GRACE_S = {"kafka": 30.0, "redis": 10.0, "trainer": 40.0, "engine": 25.0, "gateway": 35.0}
_STAGE = {"redis": 1, "kafka": 2}


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything listens. Health and metrics of a service: ``http://127.0.0.1:<port>``."""

    kafka: str
    """Bootstrap servers."""
    redis: str
    """redis:// URL."""
    gateway: str
    """Base URL; OpenAI clients append ``/v1``."""
    engine: str
    """vLLM's base URL."""
    ports: dict[str, int]
    """Every picked port by name (``gateway``, ``vllm``, ``kafka``, ``trainer_metrics``, ...)."""

    @classmethod
    def of(cls, settings: Settings, ports: Mapping[str, int]) -> Addresses:
        """The addresses that settings and picked ports make."""
        return cls(
            kafka=settings.kafka or f"127.0.0.1:{ports['kafka']}",
            redis=settings.redis or f"redis://127.0.0.1:{ports['redis']}/0",
            gateway=f"http://127.0.0.1:{ports['gateway']}",
            engine=settings.engine_url or f"http://127.0.0.1:{ports['vllm']}",
            ports=dict(ports),
        )

    @property
    def dashboard(self) -> str | None:
        """The page's address; None where it does not run."""
        port = self.ports.get("dashboard_metrics")
        return None if port is None else f"http://127.0.0.1:{port}"

    def metrics(self, service: str) -> str:
        """URL of a service's metrics."""
        return f"{self._base(service)}/metrics"

    def health(self, service: str) -> str:
        """URL that answers 200 when a service is ready."""
        return f"{self._base(service)}/readyz"

    def _base(self, service: str) -> str:
        if service == "gateway":
            return self.gateway
        return f"http://127.0.0.1:{self.ports[f'{service}_metrics']}"


def check(settings: Settings, user: Mapping[str, object]) -> None:
    """Raises SettingsError where a service is to run that cannot without the user's word.

    ``user`` is what the user set for the services.
    """
    for service, key, what in (
        ("graders", "spec", "the graders' file"),
        ("rollouts", "tasks", "the folders with tasks"),
    ):
        table = user.get(service)
        named = isinstance(table, Mapping) and key in table
        if service in settings.services and not named:
            raise SettingsError(
                f"{service}.{key}: not set; name {what}, or leave {service} out of local.services"
            )


def compose(settings: Settings, addresses: Addresses, model_dir: Path, token: str) -> Document:
    """The settings document for all children. ``token`` opens vLLM's admin routes."""
    cores = sorted(os.sched_getaffinity(0))
    trainer = place("trainer", cores).cores
    tables: Document = {
        "gateway": {
            "port": addresses.ports["gateway"],
            "engine_url": addresses.engine,
            "model_dir": model_dir,
            "learn_default": True,
        },
        "engine": {
            "model_folder": model_dir,
            "vllm_port": addresses.ports["vllm"],
            "vllm_url": settings.engine_url,
            "admin_token": settings.engine_token if settings.engine_url else token,
            "cores": omp_binding(serving(cores)),
            "dtype": own_dtype(),
        },
        "rewards": {"spec": REWARD_SPEC},
        "trainer": {
            "model_dir": model_dir,
            "compute": own_dtype(),
            "threads": min(8, len(trainer)) if trainer is not None else 1,
        },
    }
    if not settings.kafka:  # nobody else's workers: a killed one has its partitions back at once
        tables["rewards"]["instance"] = "local"
    if "rollouts" in settings.services:
        tables["rollouts"] = {"engines": {"engine-0": addresses.engine}}
    if "dashboard" in settings.services:
        port = addresses.ports["dashboard_metrics"]
        with_talk = "gateway" in settings.services
        tables["dashboard"] = {
            "port": port,
            "gateway_url": addresses.gateway if with_talk else "",
            "model_dir": model_dir,
        }
        # A browser may have opened it under either name.
        hosts = ("127.0.0.1", "localhost")
        tables["gateway"]["cors_origins"] = [f"http://{host}:{port}" for host in hosts]
    for service in settings.services:
        table = tables.setdefault(service, {})
        if service not in ("gateway", "dashboard"):  # these have HTTP of their own
            table["metrics_port"] = addresses.ports[f"{service}_metrics"]
    return {
        "kafka": addresses.kafka,
        "redis": addresses.redis,
        "prefix": settings.prefix,
        "registry": settings.registry,
        "model": settings.model,
        "state_dir": settings.state_dir.expanduser().absolute(),
        "log_level": settings.log_level,
        **tables,
    }


def program(name: str, argv: list[str], log: Callable[[str], Path]) -> Program:
    """How one part is run: its place on the cores, its turn at the end."""
    where = place(name, sorted(os.sched_getaffinity(0)))
    return Program(
        name=name,
        argv=argv,
        log=str(log(name)),
        stage=_STAGE.get(name, 0),
        grace_s=_GRACE_S.get(name, 20.0),
        cores=where.cores,
        nice=where.nice,
    )
