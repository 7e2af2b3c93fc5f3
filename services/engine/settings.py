"""What the engine process can be told."""

from __future__ import annotations

from pathlib import Path

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """Table ``[engine]``, variables ``TAILRACE_ENGINE_*``."""

    id: str = "engine-0"
    """Key of this engine's acks: one for each engine of a model, the same after a restart."""
    model_folder: Path | None = None
    """Hugging Face folder of version 0: what vLLM is started from. Required."""
    vllm_url: str | None = None
    """Attach to a vLLM (with our plugin and guard) that somebody else runs; None: run one."""
    vllm_port: int = 8001
    """Port on loopback of the vLLM that this process runs."""
    admin_token: str | None = None
    """Opens vLLM's admin routes; None: a fresh one for each vLLM that this process runs."""
    max_model_len: int = 1024
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: int = 64
    """Requests in flight; more wait in vLLM's queue."""
    kv_cache_mib: int = 768
    """Memory for keys and values."""
    adapters: bool = False
    """Serve LoRA adapters beside the model; costs speed even while none is loaded."""
    cores: str | None = None
    """Cores of vLLM (``0``, ``0-3``, ``0,2``), which then computes in one process; None: as vLLM
    chooses, and where it runs in several ranks."""
    dtype: str | None = None
    """What vLLM computes in, its ``--dtype``; None: as the weights are. ``float32`` is many times
    faster on a processor that cannot multiply bfloat16."""
    vllm_arguments: tuple[str, ...] = ()
    """Put at the end of vLLM's command line."""
    shared_dir: Path = Path("/dev/shm")
    """Where a version is laid for vLLM to read; without room there, ``state_dir`` is used."""
    patches: bool = True
    """Where vLLM computes with the weights as they come, write only what changed."""
    call_s: float = 20.0
    """Time-out of one admin call."""
    settle_s: float = 30.0
    """How long a vLLM that did not answer may take until it is given up."""
    start_s: float = 300.0
    """How long vLLM may take until it is healthy."""
    journal_mib: int = 256
    """Memory for undoing the last updates: as far as it reaches, stepping back needs no
    download."""
    canary_s: float = 20.0
    """Time-out of scoring a manifest's canary."""
    canary_tolerance: float = 0.3
    """Mean absolute difference of canary logprobs in nats per token that is still agreement."""
    serving_ack_s: float = 30.0
    """How often the engine says which version it serves."""
    turn_s: float = 2.0
    """How long each engine before this one may take for a version until this one goes ahead."""
