"""``python -m services.trainer``: the trainer of one model; with ``torchrun``, of many processes.

Exit codes: 0 stopped, 1 the log failed or holds no version to go on from that can be read here, 2
settings that cannot work, 3 another trainer of this model took over.
"""

from __future__ import annotations

from collections.abc import Callable
import gc
import os
import sys
import time
from typing import Any

from services.trainer import heap
from services.trainer.settings import Settings
from tailrace import process
from tailrace.errors import LogError, SettingsError, UpdateRefused

_REACH_S = 30.0
"""How long a broker may take to say that it is there."""


def main(argv: list[str] | None = None, crash: Callable[[str], None] = lambda point: None) -> int:
    """Run until SIGTERM. ``crash`` is told every commit point; kill tests end the process there."""
    settings = process.start("trainer", Settings, argv)
    if settings.model_dir is None or not settings.model_dir.is_dir():
        return _wrong(f"trainer.model_dir: a model folder is required, not {settings.model_dir}", 2)
    stop = process.stopping()
    state = {"why": "recovering"}
    first = os.environ.get("RANK", "0") == "0"
    process.expose(settings.metrics_port if first else None, lambda: state["why"] or None)

    from services.trainer.learner import deterministic
    from services.trainer.trainer import Trainer
    from tailrace.log.kafka import KafkaLog
    from tailrace.wire import Wire

    heap.keep()
    deterministic(settings.threads)
    if (wrong := _wrong_with_device(settings.device)) is not None:
        return _wrong(f"trainer.device: {wrong}", 2)
    crew: dict[str, Any] = {}
    log = KafkaLog(settings.kafka)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if settings.lora_rank:
            return _wrong("trainer.lora_rank: an adapter is trained by one process", 2)
        from services.trainer.consumers import together
        from services.trainer.crew import follow, leading
        from services.trainer.ranks import Ranks

        ranks = Ranks.join(settings.device, life=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if not first:
            follow(ranks, settings.model_dir, settings, log)
            log.close()
            ranks.leave()
            return 0
        crew = {"learner_of": leading(ranks), "consumer_of": together(ranks)}

    def live(wire: Wire) -> None:
        """One trainer, until it is to end or its head was withdrawn."""
        trainer = Trainer(
            log,
            wire,
            settings,
            clock=time.monotonic,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            crash=crash,
            **crew,
        )
        state["why"] = ""
        try:
            while not stop.is_set() and not trainer.withdrawn:
                trainer.turn()
            if stop.is_set():
                trainer.stop()
        finally:
            trainer.close()

    try:
        log.reach(_REACH_S)
        wire = Wire(settings.registry)
        while not stop.is_set():
            live(wire)
            state["why"] = "going on from another version"
            gc.collect()  # else two models are in memory while the next one is made
        if crew:
            ranks.tell("end")
            ranks.leave()
    except UpdateRefused as error:
        why = f"no version of {settings.model} to go on from can be read: {error}"
        return _wrong(f"{why} (tailrace models rollback --to V names another)", 1)
    except (SettingsError, LogError) as error:
        return process.ended("trainer", error)
    finally:
        log.close()
    return 0


def _wrong_with_device(name: str) -> str | None:
    import torch

    try:
        torch.device(name)
    except RuntimeError:
        return f"{name!r} is no device of torch; cpu, cuda and cuda:0 are"
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # each backend that is not there raises its own
        why = str(error).partition("\n")[0].partition(". ")[0]
        return f"{name!r} is not there or does not compute: {why}"
    return None


def _wrong(message: str, code: int) -> int:
    print(f"trainer: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
