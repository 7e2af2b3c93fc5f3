"""Kafka's jars: fetched through jgo, each one checked against a pinned sha256.

In: ``kafka.sha256`` beside this file (``sha256sum -c`` format, one line a jar, by its path in a
Maven repository). Out: one folder that holds exactly these jars, ready for a class path.

Invariants. The folder appears by one rename, after every jar in it was verified: a half-written jar
is never used. What a killed preparation had finished is kept and used by the next. A jar that does
not match its pin is refused by name. Only pinned jars are ever fetched; no graph is resolved.

To pin another version: ``jgo.resolve("org.apache.kafka:kafka_2.13:V+org.slf4j:slf4j-simple:W")``
lists the coordinates.

Called by :mod:`services.local.runner` and by the tests' ``broker`` fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import fcntl
import hashlib
import os
from pathlib import Path
import shutil

PINS = Path(__file__).with_name("kafka.sha256")
KAFKA_VERSION = "4.3.1"

Say = Callable[[str], None]


class PreparationError(RuntimeError):
    """A part could not be prepared; the message says which and what to do."""


def pins(file: Path = PINS) -> dict[str, str]:
    """Pinned sha256 (hex) by path in a Maven repository."""
    lines = (line.split() for line in file.read_text().splitlines() if line.strip())
    return {path: digest for digest, path in lines}


def folder(cache_dir: Path) -> Path:
    """Where the verified jars lie, or will."""
    return cache_dir / f"kafka-{KAFKA_VERSION}"


def verify(jars: Path, pinned: dict[str, str]) -> None:
    """Raises PreparationError naming each jar that is missing, altered or not pinned."""
    wanted = {Path(path).name: digest for path, digest in pinned.items()}
    wrong = [name for name, digest in wanted.items() if _sha256(jars / name) != digest]
    wrong += [entry.name for entry in jars.iterdir() if entry.name not in wanted]
    if wrong:
        raise PreparationError(
            f"{jars}: {', '.join(sorted(wrong))}: not what its pinned sha256 says"
        )


def prepare(cache_dir: Path, say: Say, fetch: Callable[[str, Path], None] | None = None) -> Path:
    """The folder of verified jars under ``cache_dir``, made when it is not there.

    ``fetch(path, repository)`` downloads one jar into ``repository / path`` (default: jgo, from
    Maven Central). Raises PreparationError.
    """
    pinned = pins()
    target = folder(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two preparations at once would write the same files
        if target.exists():
            try:
                verify(target, pinned)
            except PreparationError as error:
                say(f"kafka: {error}; making it again")
                shutil.rmtree(target)
            else:
                return target
        repository = cache_dir / "maven"
        _download(repository, pinned, say, fetch or _by_jgo)
        staging = cache_dir / f"kafka-{KAFKA_VERSION}.part"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for path in pinned:
            os.link(repository / path, staging / Path(path).name)
        verify(staging, pinned)
        staging.rename(target)
        shutil.rmtree(repository)
        say(f"kafka: {len(pinned)} jars verified")
        return target


def _download(
    repository: Path, pinned: dict[str, str], say: Say, fetch: Callable[[str, Path], None]
) -> None:
    missing = []
    for path, digest in pinned.items():
        if _sha256(repository / path) != digest:
            (repository / path).unlink(missing_ok=True)
            missing.append(path)
    say(f"kafka: {len(pinned) - len(missing)} of {len(pinned)} jars are here, fetching the others")

    def one(path: str) -> None:
        try:
            fetch(path, repository)
        except Exception as error:
            raise PreparationError(
                f"kafka: {Path(path).name} could not be fetched ({error}); run it again to continue"
            ) from error
        if _sha256(repository / path) != pinned[path]:
            (repository / path).unlink(missing_ok=True)
            raise PreparationError(
                f"kafka: {Path(path).name}: its sha256 is not the pinned one, refused"
            )

    pool = ThreadPoolExecutor(4)
    try:
        for number, _ in enumerate(pool.map(one, missing), start=1):
            if number % 5 == 0 or number == len(missing):
                say(f"kafka: {number} of {len(missing)} jars fetched")
    finally:
        pool.shutdown(cancel_futures=True)


def _by_jgo(path: str, repository: Path) -> None:
    from jgo.maven import MavenContext

    *group, artifact, version, _ = path.split("/")
    context = MavenContext(repo_cache=repository, timeout=60)
    context.project(".".join(group), artifact).at_version(version).artifact().resolve()


def _sha256(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
