"""``python -m services.trainer.replay``: what ``tailrace replay --train`` runs in the checkout.

Progress goes to standard output, with ``--json`` to standard error, and then the last line is one
object. Exit codes: 0; 1 it cannot be done, or the replay ended on another digest than it must; 2
wrong settings, or torch is not installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import importlib.util
import logging
import os
from pathlib import Path
import sys
import time
from uuid import uuid4

import msgspec

from services.trainer.settings import Settings
from tailrace import replay
from tailrace.errors import SettingsError, TailraceError
from tailrace.log.base import Log
from tailrace.settings import load


def main(argv: Sequence[str] | None = None, log: Log | None = None) -> int:
    """One replay; ``log`` stands in for the broker of the settings, and is not closed."""
    parser = argparse.ArgumentParser(prog="tailrace replay --train")
    replay.add_options(parser)
    for name in ("settings", "state-dir"):
        parser.add_argument(f"--{name}", type=Path)
    for name in replay.COMMON:
        parser.add_argument(f"--{name}")
    given = parser.parse_args(argv)
    try:
        settings = _settings(given)
        return _run(given, settings, log)
    except SettingsError as error:
        print(f"tailrace: {error}", file=sys.stderr)
        return 2
    except (TailraceError, ValueError) as error:
        print(f"tailrace replay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _settings(given: argparse.Namespace) -> Settings:
    settings = load(Settings, "trainer", os.environ, given.settings)
    values = {name: getattr(given, name) for name in (*replay.COMMON, "state_dir", "model_dir")}
    settings = msgspec.structs.replace(
        settings, **{name: value for name, value in values.items() if value is not None}
    )
    if settings.model_dir is None or not settings.model_dir.is_dir():
        raise SettingsError(
            f"trainer.model_dir: a model folder is required, not {settings.model_dir}: name the "
            "trainer's settings (--settings) or the folder (--model-dir)"
        )
    if importlib.util.find_spec("torch") is None:
        raise SettingsError("training takes torch, which is not installed here: uv sync")
    return settings


def _run(given: argparse.Namespace, settings: Settings, log: Log | None) -> int:
    from services.trainer.learner import deterministic
    from services.trainer.replay.result import Request, in_words
    from services.trainer.replay.retraining import retrain
    from tailrace.log.kafka import KafkaLog
    from tailrace.wire import Wire

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    deterministic(settings.threads)
    request = Request(
        begin=given.from_version,
        end=given.to_version,
        without=tuple(given.without),
        into=given.into or f"{settings.prefix}replay-{uuid4().hex[:8]}.",
        checkpoints=given.checkpoints or settings.own_dir,
        reseed=given.reseed,
    )
    opened = log is None
    if log is None:
        log = KafkaLog(settings.kafka)
    try:
        log.reach(replay.REACH_S)
        wire = Wire(settings.registry)
        say = _say(sys.stderr if given.json else sys.stdout)
        result = retrain(log, wire, settings, request, wall_ms=_wall_ms, say=say)
    finally:
        if opened:
            log.close()
    if given.json:
        print(msgspec.json.encode(result).decode())
    else:
        print("\n".join(in_words(result)))
    return 0 if result.ok else 1


def _say(to: object) -> Callable[[str], None]:
    return lambda line: print(line, file=to, flush=True)  # type: ignore[call-overload]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    raise SystemExit(main())
