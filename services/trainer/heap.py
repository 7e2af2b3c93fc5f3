"""Memory that a step frees stays with the process, for the next step.

glibc gives a large block back to the system when it is freed, and takes it anew, zeroed and page by
page, when one is asked for: for 100 MB that is several times what filling them takes. A step makes
and frees gigabytes. Called once by :mod:`services.trainer.__main__`; the process is then as large
as its largest step for as long as it lives.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt, see malloc.h."""


def keep() -> bool:
    """From now on; whether the C library can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
