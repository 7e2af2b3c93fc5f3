"""Which process runs on which cores.

vLLM's and torch's threads spin while they wait for each other; when both spread over the same cores
a training step takes more than twice as long. So the engine and the trainer get cores of their own
and everything else goes where there is time left, with lower priority than either.

Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

OTHERS_NICE = 5


class Place(msgspec.Struct, frozen=True):
    """Cores (None: all) and niceness of one process."""

    cores: list[int] | None
    nice: int


def place(name: str, cores: Sequence[int]) -> Place:
    """The place of the part ``name`` on a machine whose usable cores are ``cores``.

    One core: nothing to divide. Otherwise the engine has the first half, the trainer the second
    (the larger where they differ), others all of them.

    >>> place("trainer", [0, 1]), place("engine", [0, 1]), place("drift", [0, 1])
    (Place(cores=[1], nice=0), Place(cores=[0], nice=0), Place(cores=None, nice=5))
    """
    nice = 0 if name in ("engine", "trainer") else OTHERS_NICE
    if len(cores) < 2 or nice:
        return Place(None, nice)
    ordered = sorted(cores)
    half = len(ordered) // 2
    return Place(ordered[half:] if name == "trainer" else ordered[:half], nice)


def omp_binding(cores: Sequence[int] | None) -> str | None:
    """Cores as VLLM_CPU_OMP_THREADS_BIND takes them, None where nothing is pinned.

    >>> omp_binding([0, 1])
    '0,1'
    """
    return None if cores is None else ",".join(str(core) for core in cores)
