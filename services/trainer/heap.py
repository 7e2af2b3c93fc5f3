"""Memory that a step frees stays with the process, for the next step.

glibc gives a large block back to the system when it is freed, and takes it anew, zeroed and page by
page, when one is asked for: for 100 MB that is several times what filling them takes. A step makes
and frees gigabytes. Called once by :mod:`services.trainer.__main__`; the process is then as large
as its largest step for as long as it lives. Another C library does as it likes: steps are slower
there, which is said.
"""

from __future__ import annotations

import ctypes
import logging

_log = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt, see malloc.h."""


def keep() -> bool:
    """From now on; whether the C library can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1):
        return True
    _log.warning("this C library cannot keep what a step frees: steps are slower")
    return False
