"""What the machine must have before anything starts: memory and disk.

In: what will be run and where. Out: lines that say need and supply, and a refusal where one is
short. Figures are measured ones, rounded up. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
import shutil

import psutil

MIB = 1024 * 1024
STATE_MIB = 1550
"""The trainer's float32 masters and both moments."""
MEMORY_MIB = {
    "kafka": 500,
    "redis": 50,
    "engine": 3600,
    "trainer": 4700 + STATE_MIB,
    "gateway": 300,
    "rewards": 300,
    "drift": 250,
    "releases": 100,
}
"""Resident memory of each part at its highest, with a model of 135M parameters; the engine's is
vLLM's too, the trainer's is masters, gradients and moments, one forward pass, and the copy of a
whole checkpoint that it makes where the disk is slower than a step."""
MODEL_DISK_MIB = 700
"""The prepared model and the half-written copy beside it while it is made."""
JARS_DISK_MIB = 100
STATE_DISK_MIB = 2500
"""Topics and logs of a day of play."""
CHECKPOINTS_DISK_MIB = 3 * STATE_MIB
"""The trainer's: two that are kept and one that is being written."""


class Shortage(RuntimeError):
    """Disk or memory is short; the message says which and by how much."""


def check(
    parts: Iterable[str], *, state_dir: Path, cache_dir: Path, model: bool, jars: bool
) -> list[str]:
    """Lines that say what is needed and what is there. Raises Shortage.

    ``model`` and ``jars``: whether they still have to be prepared in ``cache_dir``.
    """
    parts = list(parts)
    need_mib = sum(MEMORY_MIB.get(part, 150) for part in parts)
    have_mib = available_memory_mib()
    lines = [f"memory: about {need_mib} MiB needed, {have_mib} MiB available"]
    if have_mib < need_mib:
        raise Shortage(lines[-1] + "; local.check_resources = false starts anyway")
    state_mib = STATE_DISK_MIB + ("trainer" in parts) * CHECKPOINTS_DISK_MIB
    needs = [(state_dir, state_mib, "state")]
    if model or jars:
        needs.append((cache_dir, model * MODEL_DISK_MIB + jars * JARS_DISK_MIB, "cache"))
    for folder, disk_mib, what in needs:
        free_mib = shutil.disk_usage(_existing(folder)).free // MIB
        lines.append(f"disk: {disk_mib} MiB for {what} in {folder}, {free_mib} MiB free")
        if free_mib < disk_mib:
            raise Shortage(lines[-1] + "; local.check_resources = false starts anyway")
    return lines


def available_memory_mib(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory to be had without swapping: the machine's, or less where a container caps it."""
    available = psutil.virtual_memory().available
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            used = int((cgroup / "memory.current").read_text())
            available = min(available, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return int(available // MIB)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
