"""``tailrace replay``: a stretch of a topic as JSON lines; with ``--to-prefix``, a stretch of the
session topics written again under another prefix; with ``--train``, a stretch of a model's history
trained again.

The first two work from the wheel. The third needs torch and the trainer, so it becomes
``services.trainer.replay`` of the checkout; its options are here, for both of them.
Called by :mod:`tailrace.cli` and :mod:`tailrace.commands`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.errors import SettingsError

if TYPE_CHECKING:
    from tailrace.log.base import Log
    from tailrace.settings import Common

COMMON = ("kafka", "prefix", "registry", "model")
"""Settings that are found here and handed on."""
REACH_S = 10.0
_TRAIN = ("from_version", "to_version", "without", "into", "checkpoints", "model_dir", "reseed")
_READ = ("topic", "events")
_STRETCH = ("since", "until")
_COPY = ("from_offset", "speed", "filter", "kept", "resume")
_PLANNED = ("since", "until", "from_offset", "filter", "kept")


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``replay``. ``command`` adds one with the options that say where the log is."""
    text = (
        "print a stretch of a topic as JSON lines, write one again under another prefix "
        "(--to-prefix), or train one again (--train)"
    )
    replay = command(commands, "replay", text)
    replay.add_argument("topic", nargs="?", help="its name, without prefix")
    replay.add_argument("--since", metavar="T", help="from here: 1h, a time (the oldest record)")
    replay.add_argument("--until", metavar="T", help="up to here (now)")
    replay.add_argument(
        "--events", action="store_true", help="the events alone, without coordinates"
    )
    copy = replay.add_argument_group("writing again")
    copy.add_argument(
        "--to-prefix", metavar="P", help="write prompts, outputs, feedback and ticks under P"
    )
    copy.add_argument(
        "--from-offset",
        action="append",
        metavar="PLACE",
        help="begin at a record (prompts/0/120), the other partitions at its time; again for more",
    )
    copy.add_argument("--speed", metavar="N", help="as fast as it was, times N; max (max)")
    copy.add_argument(
        "--filter",
        action="append",
        metavar="NAME=VALUE",
        help="sessions of a tenant, session, user, principal, model, task, learn or tag.NAME",
    )
    copy.add_argument(
        "--kept", action="store_true", help="begin with what is kept, where some has expired"
    )
    copy.add_argument("--resume", action="store_true", help="go on with what is under P")
    train = replay.add_argument_group("training again (needs the checkout)")
    train.add_argument("--train", action="store_true", help="the steps between two versions")
    add_options(train, required=False)


def add_options(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """What ``--train`` takes."""
    for name, text in (("from", "whose state it begins with"), ("to", "with which it ends")):
        parser.add_argument(
            f"--{name}-version", type=int, metavar="V", required=required, help=f"version {text}"
        )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="ID",
        help="leave out the answers of an interaction, or of a user; again for more of them",
    )
    parser.add_argument(
        "--into", metavar="P", help="prefix of what it publishes (replay-<id>., a new one)"
    )
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="of the trainer (as its settings say)"
    )
    parser.add_argument(
        "--model-dir", type=Path, metavar="DIR", help="of version 0 (as the trainer's settings say)"
    )
    parser.add_argument(
        "--reseed",
        action="store_true",
        help="begin with the version's weights and a new optimizer: ends on another digest",
    )
    parser.add_argument("--json", action="store_true", help="the result as one object, last")


def check(arguments: argparse.Namespace) -> None:
    """Raises SettingsError where options of one kind of replay are given to the other."""
    copies = arguments.to_prefix is not None
    if arguments.train and copies:
        raise SettingsError("replay: --to-prefix does not go with --train")
    if arguments.train:
        _refuse(arguments, (*_READ, *_STRETCH, *_COPY), "with --train")
    elif copies:
        _refuse(arguments, (*_READ, *_TRAIN), "with --to-prefix")
        if arguments.resume:
            _refuse(arguments, _PLANNED, "with --resume: the prefix says what it is a copy of")
    else:
        _refuse(arguments, _TRAIN, "without --train")
        _refuse(arguments, _COPY, "without --to-prefix")
    if arguments.train and None in (arguments.from_version, arguments.to_version):
        raise SettingsError("replay: --train takes --from-version and --to-version")
    if not arguments.train and not copies and arguments.topic is None:
        raise SettingsError("replay: name a topic, or --train, or --to-prefix")


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], where: str) -> None:
    for name in names:
        given = getattr(arguments, name)
        if given is not None and given is not False and given != []:
            shown = name if name == "topic" else f"--{name.replace('_', '-')}"
            raise SettingsError(f"replay: {shown} does not go {where}")


def copy(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """``--to-prefix``: write a stretch again. Raises ValueError for what is refused, LogError."""
    from tailrace.replaying import command

    return command.run(arguments, common, log)


def train(arguments: argparse.Namespace, common: Common) -> int:
    """Become the trainer's replay, or say that there is no checkout: 2."""
    from tailrace.cli import run_in_checkout, settings_file

    argv = []
    for name in COMMON:
        if getattr(common, name) is not None:
            argv += [f"--{name}", getattr(common, name)]
    file = settings_file(arguments, os.environ)
    argv += [] if file is None else ["--settings", str(file)]
    for name in ("state_dir", "from_version", "to_version", "into", "checkpoints", "model_dir"):
        value = getattr(arguments, name)
        argv += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    for name in arguments.without:
        argv.append(f"--without={name}")
    argv += [f"--{name}" for name in ("reseed", "json") if getattr(arguments, name)]
    return run_in_checkout("services.trainer.replay", argv, name="replay --train")
