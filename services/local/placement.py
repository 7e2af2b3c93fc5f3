"""Which process runs on which cores.

vLLM's and torch's threads spin while they wait for each other; when both spread over the same cores
a training step takes more than twice as long. So vLLM and the trainer get cores of their own. The
engine process itself, which works for half a second when a version comes, may do so beside either;
everything else goes where there is time left, with lower priority than all of them.

Called by :mod:`services.local.composition`.
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

    One core: nothing to divide. Otherwise the trainer has what :func:`serving` leaves, the larger
    half where they differ; others all of them.

    >>> place("trainer", [0, 1]), place("engine", [0, 1]), place("drift", [0, 1])
    (Place(cores=[1], nice=0), Place(cores=None, nice=0), Place(cores=None, nice=5))
    """
    nice = 0 if name in ("engine", "trainer") else OTHERS_NICE
    taken = serving(cores)
    if name != "trainer" or taken is None:
        return Place(None, nice)
    return Place(sorted(set(cores) - set(taken)), nice)


def serving(cores: Sequence[int]) -> list[int] | None:
    """The cores of vLLM: the first half; None where there is but one.

    >>> serving([0, 1, 2]), serving([0])
    ([0], None)
    """
    return sorted(cores)[: len(cores) // 2] or None


def omp_binding(cores: Sequence[int] | None) -> str | None:
    """Cores as VLLM_CPU_OMP_THREADS_BIND takes them, None where nothing is pinned.

    >>> omp_binding([0, 1])
    '0,1'
    """
    return None if cores is None else ",".join(str(core) for core in cores)
