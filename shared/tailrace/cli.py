"""The ``tailrace`` command. Each sub-command imports what it needs when it runs.

``demo``, ``up``, ``reward try`` and ``replay --train`` need a checkout (the services are not in the
wheel); everything else works from the wheel alone, against any broker with a plaintext listener.
Exit codes: 0; 1 what was asked could not be done or an audit found something; 2 wrong usage or
settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import os
from pathlib import Path
import re
import sys
from typing import TYPE_CHECKING, Any

from tailrace import deadletters, evaluation, keys, models, overview, replay, tail, why
from tailrace.archive import command as archive
from tailrace.compare import command as compare
from tailrace.errors import SettingsError, TailraceError
from tailrace.export import command as export

if TYPE_CHECKING:
    from tailrace.settings import Common


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("demo", "up"):
        return run_in_checkout("services.local", argv, name=argv[0])
    arguments = parser().parse_args(_moments(argv))
    if arguments.command is None:
        parser().print_help()
        return 2
    try:
        if arguments.command == "keys":  # files alone: no settings, no broker
            return keys.run(arguments)
        common = settings(arguments, os.environ)
        from tailrace import commands

        return commands.run(arguments, common)
    except SettingsError as error:
        print(f"tailrace: {error}", file=sys.stderr)
        return 2
    except (TailraceError, ValueError) as error:
        print(f"tailrace {arguments.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read us has left; the flush at exit must not find the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    found = argparse.ArgumentParser(
        prog="tailrace", description="Feedback becomes weights while the model serves."
    )
    commands = found.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("demo", "start everything, let simulated users teach the model (needs the checkout)"),
        ("up", "start everything, without users (needs the checkout)"),
    ):
        commands.add_parser(name, help=text, add_help=False)

    status = _command(commands, "status", "what runs, how far it is, what is waiting")
    status.add_argument("--json", action="store_true")

    audit = _command(commands, "audit", "recount the log: in = outcomes + in flight")
    audit.add_argument("--json", action="store_true")
    audit.add_argument(
        "--head",
        type=int,
        metavar="V",
        help="the version whose history is recounted (the one that is trained on)",
    )
    audit.add_argument(
        "--decide-within",
        type=float,
        metavar="SECONDS",
        help="a feedback record without receipt is missing once the clock is that far past it "
        "(7200; less where the settings of the state directory name the reward spec)",
    )

    audit.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="a line again and again, with what is in flight, until Ctrl-C",
    )
    audit.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two lines (5)"
    )

    tail.add_parser(commands, _command)
    replay.add_parser(commands, _command)

    send = _command(commands, "send", "send feedback about an interaction or a session")
    send.add_argument("subject", help="the id of an answer, or of a session")
    send.add_argument("value", nargs="?", help="true, false, a number, or text")
    send.add_argument("--metric", default="thumbs")
    send.add_argument("--kind", help="comment or demonstration, of a text that is no category")
    send.add_argument("--choice", type=int, default=0, metavar="N", help="of several answers (0)")
    send.add_argument(
        "--preferred-over", metavar="ANSWER", help="the answer that lost, in place of a value"
    )
    send.add_argument(
        "--id", metavar="TOKEN", help="the feedback's own id; sent again, it is the same"
    )
    send.add_argument(
        "--replaces", metavar="ID", help="an earlier feedback id that this supersedes"
    )
    send.add_argument("--url", help="the gateway (default: of the state directory)")
    send.add_argument("--key", help="API key")

    reward = commands.add_parser(
        "reward", help="how a reward came to be, and what another reward spec would have said"
    ).add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = _command(reward, "explain", "an answer, what was said of it, its reward by terms")
    explain.add_argument("interaction", help="the id of an answer")
    explain.add_argument("--json", action="store_true")
    tried = _command(
        reward, "try", "score logged interactions again, writing nothing (needs the checkout)"
    )
    tried.add_argument("spec", help="a reward spec (TOML)")
    tried.add_argument("--since", metavar="T", default="1h", help="from here: 2h, a time (1h)")
    tried.add_argument("--until", metavar="T", help="up to here (now)")
    tried.add_argument("--json", action="store_true")

    why.add_parser(commands, _command)
    overview.add_parser(commands, _command)
    deadletters.add_parser(commands, _command)
    evaluation.add_parser(commands, _command)
    export.add_parser(commands, _command)
    archive.add_parser(commands, _command)
    compare.add_parser(commands, _command)
    models.add_parser(commands, _command)
    keys.add_parser(commands)
    return found


def _moments(argv: list[str]) -> list[str]:
    """``-1h`` is a moment, which argparse would take for an option."""
    return [
        arg[1:] if before in ("--since", "--until") and re.fullmatch(r"-\d+[smhd]", arg) else arg
        for before, arg in zip(["", *argv], argv, strict=False)
    ]


def _command(
    commands: argparse._SubParsersAction[Any], name: str, text: str, **more: Any
) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, **more)
    found.add_argument(
        "--state-dir", type=Path, metavar="D", help="of a local system (default .tailrace)"
    )
    found.add_argument("--settings", type=Path, metavar="F", help="settings file (TOML)")
    found.add_argument("--kafka", metavar="HOST:PORT", help="bootstrap servers")
    found.add_argument("--prefix", metavar="P", help="of topics and groups")
    found.add_argument("--model", metavar="NAME", help="the model's name")
    return found


def settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Common:
    """Where the log is: options, else the environment, else a settings file.

    The file: ``--settings``, else ``TAILRACE_SETTINGS``; in place of none, or of one that says what
    the local runner is to do, what that wrote into the state directory. The state directory as the
    local runner finds it. Raises SettingsError.
    """
    import msgspec

    from tailrace.settings import Common, load

    file = settings_file(arguments, environment)
    document = _named(arguments, environment)[1]
    state_dir = arguments.state_dir or _state_dir(document, environment)
    common = load(Common, "cli", environment, file)
    given = {
        name: getattr(arguments, name)
        for name in ("kafka", "prefix", "model")
        if getattr(arguments, name) is not None
    }
    return msgspec.structs.replace(common, state_dir=state_dir, **given)


def settings_file(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Path | None:
    """The file that :func:`settings` reads; None: there is none. Raises SettingsError."""
    file, document = _named(arguments, environment)
    if file is not None and not isinstance(document.get("local"), dict):
        return file
    state_dir = arguments.state_dir or _state_dir(document, environment)
    written = state_dir / "settings.toml"
    if written.exists():
        return written
    if arguments.state_dir is not None and arguments.kafka is None:
        raise SettingsError(f"--state-dir: {state_dir} holds no system (no settings.toml)")
    return file


def _named(
    arguments: argparse.Namespace, environment: Mapping[str, str]
) -> tuple[Path | None, Mapping[str, Any]]:
    """The settings file that the user names, and what it says."""
    from tailrace.settings import read

    named = environment.get("TAILRACE_SETTINGS")
    file = arguments.settings or (None if named is None else Path(named))
    return file, {} if file is None else read(file)


def _state_dir(document: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    local = document.get("local")
    places = (
        environment.get("TAILRACE_LOCAL_STATE_DIR"),
        environment.get("TAILRACE_STATE_DIR"),
        local.get("state_dir") if isinstance(local, dict) else None,
        document.get("state_dir"),
    )
    return Path(str(next((place for place in places if place), ".tailrace"))).expanduser()


def checkout() -> Path | None:
    """The checkout that holds the services: that of this library, else the working directory."""
    for folder in (Path(__file__).parents[2], Path.cwd()):
        if (folder / "services" / "local" / "__main__.py").exists():
            return folder
    return None


def run_in_checkout(module: str, argv: list[str], *, name: str) -> int:
    """Become a module of the services, or say that command ``name`` cannot: 2."""
    folder = checkout()
    if folder is None:
        print(
            f"tailrace {name}: this runs the services, which are not in the wheel; "
            "run it in a checkout of tailrace",
            file=sys.stderr,
        )
        return 2
    # The current directory stays: paths that the user gives begin there.
    found = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.execve(
        sys.executable,
        [sys.executable, "-P", "-m", module, *argv],
        {**os.environ, "PYTHONPATH": os.pathsep.join(found)},
    )


if __name__ == "__main__":
    sys.exit(main())
