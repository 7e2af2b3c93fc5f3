"""``tailrace models``: versions and who serves them; step back, pin, take one away, check one;
hold the trainer still.

Called by :mod:`tailrace.cli`. What it prints is for people; with ``--json`` one object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import getpass
from pathlib import Path
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.events import ModelUpdate
    from tailrace.log.base import Log
    from tailrace.orders import Outcome
    from tailrace.settings import Common
    from tailrace.weights.subscriber import Progress


def add_parser(
    commands: argparse._SubParsersAction[Any], command: Callable[..., argparse.ArgumentParser]
) -> None:
    """``models``, which lists, and its actions. ``command`` adds one with the options that say
    where the log is."""
    text = "versions, who serves them; roll back, pin, freeze the trainer, export, verify"
    models = command(commands, "models", text)
    models.add_argument("--limit", type=int, default=20, metavar="N", help="the newest N (20)")
    models.add_argument("--json", action="store_true", help="for programs, all of them")
    found = models.add_subparsers(dest="action", metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        # What is not given after the action must not undo what was given before it.
        return command(found, name, text, argument_default=argparse.SUPPRESS)

    back = action("rollback", "all engines to a version, and training goes on from it")
    back.add_argument("--to", type=int, required=True, metavar="V", dest="version")
    back.add_argument(
        "--data",
        choices=("skip", "retrain"),
        default="skip",
        help="what becomes of what was trained since: never again (skip), or decided again",
    )
    pin = action("pin", "all engines to a version until another word; training goes on")
    pin.add_argument("version", type=int, metavar="V")
    follow = action("follow", "a pin ends: engines follow what is trained")
    freeze = action("freeze", "the trainer takes no new batch, also after a restart")
    thaw = action("thaw", "a freeze ends")
    drain = action("drain", "what is there is trained, decided and published at once")
    keyframe = action("keyframe", "the next version, at once, is a whole model")
    for order in (back, pin, follow, freeze, thaw, drain, keyframe):
        order.add_argument("--reason", default=None, help="kept on the log")
        order.add_argument(
            "--by", default=None, metavar="NAME", help="who orders, on the log too (who you are)"
        )
        order.add_argument(
            "--timeout", type=float, default=90.0, metavar="S", help="to wait for the effect (90)"
        )
        order.add_argument("--json", action="store_true")

    export = action("export", "a version as a Hugging Face folder, tokenizer included")
    export.add_argument("version", type=int, metavar="V")
    export.add_argument("folder", type=Path, metavar="DIR", help="is never written over")
    export.add_argument(
        "--sign",
        type=Path,
        default=None,
        metavar="KEY",
        help="write an OpenSSF bundle DIR.sig with a private key on an elliptic curve (PEM)",
    )
    verify = action("verify", "build a version from the log and compare digests")
    verify.add_argument("version", type=int, metavar="V")
    verify.add_argument(
        "--folder", type=Path, default=None, metavar="DIR", help="hold this folder against it"
    )
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a public key that must have signed (beside trusted_keys)",
    )


def run(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    """One action; the exit code. Raises TailraceError and ValueError."""
    if arguments.action is None:
        return _list(arguments, common, log)
    if arguments.action in ("export", "verify"):
        do = _export if arguments.action == "export" else _verify
        try:
            return do(arguments, common, log)
        except BrokenPipeError:  # whoever read us has left
            raise
        except OSError as error:  # of a folder or a key that the user named
            where = error.filename or arguments.folder
            raise ValueError(f"{where}: {error.strerror or error}") from None
    if arguments.action in ("freeze", "thaw", "drain", "keyframe"):
        return _train(arguments, common, log)
    return _order(arguments, common, log)


def _list(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    import msgspec

    from tailrace import versions

    found = versions.gather(log, common)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(versions.in_words(found, limit=arguments.limit)))
    return 0


def _order(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    import msgspec

    from tailrace.orders import Orders

    def say(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    with Orders(log, common) as orders:
        outcome = orders.give(
            arguments.action,
            getattr(arguments, "version", None),
            data=getattr(arguments, "data", None),
            reason=arguments.reason,
            principal=arguments.by or _user(),
            timeout_s=arguments.timeout,
            say=say,
        )
    if arguments.json:
        print(msgspec.json.encode(outcome).decode())
    else:
        print("\n".join(_in_words(outcome)))
    return 0 if outcome.ok else 1


def _train(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    import msgspec

    from tailrace import training

    done = training.give(
        log,
        common,
        arguments.action,
        reason=arguments.reason,
        principal=arguments.by or _user(),
        timeout_s=arguments.timeout,
    )
    if arguments.json:
        print(msgspec.json.encode(done).decode())
    elif done.ok:
        print(f"done in {done.seconds:.1f} s: {done.said}")
    else:
        print(f"not done ({done.order}): {done.said}")
    return 0 if done.ok else 1


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody by this number
        return None


def _in_words(outcome: Outcome) -> list[str]:
    from tailrace.versions import engine_in_words

    count = sum(not engine.stale for engine in outcome.engines)
    lines = [engine_in_words(engine) for engine in outcome.engines]
    if outcome.problem is not None:
        return [*lines, f"not done: {outcome.problem}"]
    return [*lines, f"done in {outcome.seconds:.1f} s: {count} of {count} engines are there"]


def _export(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    from tailrace.errors import UpdateRefused
    from tailrace.orders import whole
    from tailrace.updates import ModelUpdates
    from tailrace.weights import bundle

    folder: Path = arguments.folder
    signature = folder.with_name(f"{folder.name}.sig")
    for path in [folder] if arguments.sign is None else [folder, signature]:
        if path.exists():
            raise ValueError(f"{path} is there already")
    if arguments.sign is not None:
        with tempfile.TemporaryDirectory() as trial:  # so that a wrong key leaves nothing behind
            (Path(trial) / "folder").mkdir()
            (Path(trial) / "folder" / "file").write_bytes(b"")
            bundle.sign(Path(trial) / "folder", arguments.sign)
    with ModelUpdates(
        log,
        common.model,
        prefix=common.prefix,
        registry=common.registry,
        trust=common.trusted_keys,
        journal_bytes=0,
        progress=_progress(),
    ) as updates:
        try:
            update = updates.at(arguments.version)
        except UpdateRefused:
            whole(updates.lineage, arguments.version, common.model, _unsigned(common.trusted_keys))
            raise
        update.save(folder)
    print(f"{folder}: {_line(update.manifest)}")
    if arguments.sign is not None:
        try:
            bundle.sign(folder, arguments.sign)
        except BaseException:
            shutil.rmtree(folder)
            signature.unlink(missing_ok=True)
            raise
        print(f"{signature}: signs it")
    return 0


def _verify(arguments: argparse.Namespace, common: Common, log: Log) -> int:
    from tailrace.errors import UpdateRefused
    from tailrace.orders import whole
    from tailrace.weights import folder as folders
    from tailrace.weights.store import Store
    from tailrace.weights.subscriber import Subscriber
    from tailrace.weights.tensors import digest
    from tailrace.wire import Wire

    keys = [*common.trusted_keys, *arguments.key]
    subscriber = Subscriber(
        log,
        Wire(common.registry),
        model=common.model,
        prefix=common.prefix,
        trust=keys,
        progress=_progress(),
    )
    store = Store.empty()
    try:
        subscriber.catch_up()
        manifest = whole(subscriber.lineage, arguments.version, common.model, _unsigned(keys))
        applied = subscriber.advance(store, arguments.version)
    finally:
        subscriber.close()
    assert store.digest == manifest.digest  # else it was refused
    from_bytes = sum(update.bytes or 0 for update in applied)
    print(f"{_line(manifest)}: built from {len(applied)} updates, {from_bytes} bytes")
    print("signed by a trusted key" if keys else "signatures were not looked at: no key is given")
    if arguments.folder is not None:
        found = digest(folders.read(arguments.folder))
        if found != manifest.digest:
            raise UpdateRefused("digest", f"{arguments.folder} holds {found}")
        print(f"{arguments.folder} holds it")
    return 0


def _unsigned(keys: Sequence[Path]) -> str:
    return ", or none that these keys signed" if keys else ""


def _line(manifest: ModelUpdate) -> str:
    return f"version {manifest.version} of {manifest.model}, digest {manifest.digest}"


def _progress() -> Callable[[Progress], None]:
    """Percents of a download, to standard error."""
    from tailrace.versions import size

    shown = -1

    def show(progress: Progress) -> None:
        nonlocal shown
        percent = 100 * progress.bytes // max(1, progress.of_bytes)
        if percent // 10 != shown // 10 and progress.of_bytes > 50_000_000:
            shown = percent
            of = size(progress.of_bytes)
            print(f"version {progress.target}: {percent} % of {of}", file=sys.stderr, flush=True)

    return show
