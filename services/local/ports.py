"""Ports on loopback: free ones are picked, and remembered so that a restart has the same addresses.

Called by :mod:`services.local.runner` and the tests' fixtures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
import os
from pathlib import Path
import random
import socket

USUAL = {"gateway": 8080, "dashboard_metrics": 8090, "kafka": 9092}
"""Where people look first, so what the README shows works as it stands."""


def free_port() -> int:
    """A port that nothing listens on right now.

    Below the range that the kernel gives to outgoing connections: from there a port could be taken
    while its server restarts.
    """
    while not is_free(port := random.randrange(20_000, 32_000)):
        pass
    return port


def is_free(port: int) -> bool:
    """Whether a server could bind this port on loopback now."""
    with socket.socket() as probe:
        # Servers bind with this option; without it a port in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def assign(
    names: Iterable[str], memory: Path, fixed: Mapping[str, int | None] | None = None
) -> dict[str, int]:
    """A port for each name: as set in ``fixed``, else as remembered, else the usual one, else any.

    All but a fixed one give way to a free one where they are taken. ``memory`` is a JSON file that
    is read and written. Raises ValueError naming a fixed port that is taken.
    """
    fixed = fixed or {}
    try:
        remembered = json.loads(memory.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        remembered = {}
    ports: dict[str, int] = {}
    for name in names:
        wanted = fixed.get(name)
        if wanted is not None and not is_free(wanted):
            raise ValueError(f"{name}: port {wanted} is taken by another process")
        port = wanted if wanted is not None else remembered.get(name, USUAL.get(name))
        while not isinstance(port, int) or port in ports.values() or not is_free(port):
            port = free_port()
        ports[name] = port
    memory.parent.mkdir(parents=True, exist_ok=True)
    part = memory.with_suffix(".part")
    part.write_text(json.dumps(remembered | ports, indent=1))
    os.replace(part, memory)
    return ports
