"""The ``vllm.general_plugins`` entry point: vLLM calls :func:`register` in each of its processes.

It makes ``--weight-transfer-config '{"backend": "tailrace"}'`` known. In a vLLM that an engine
process supervises (``TAILRACE_ENGINE_SUPERVISED=1``) it also ties every process to its parent, so a
kill -9 of any of them leaves none behind.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

BACKEND = "tailrace"
_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Register the weight transfer backend. May be called more than once."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(
            BACKEND, "tailrace.plugins.transfer", "SharedFileTransfer"
        )
    if os.environ.get("TAILRACE_ENGINE_SUPERVISED") == "1":
        _die_with_parent()


def _die_with_parent() -> None:
    """The kernel kills this process when its parent dies (Linux; elsewhere: nothing).

    vLLM's engine core outlives an API server that was killed: it would keep the cores and memory
    that the next one needs.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not hasattr(signal, "SIGKILL") or not os.path.exists("/proc/self"):
        return  # the API server itself: its launcher has done it
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before the kernel was told
        os._exit(1)
