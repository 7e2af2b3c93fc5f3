"""The processes of a run: the embedded broker and whatever is measured. They end with the block.

Each writes what it says to a file of its name in the run's folder. Called by the benchmarks that
need a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from services.local import broker, jars, processes
from services.local.ports import free_port

ROOT = Path(__file__).parents[1]
CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tailrace"
SMALL_SEGMENTS = "log.segment.bytes=33554432\nlog.retention.check.interval.ms=20000\n"
"""A topic gives room back only by whole segments: of the broker, where records are deleted."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Servers:
    """Everything that is not the load, and a folder for it, which goes with the block too."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tailrace-benchmark-")
        self.folder = Path(self._folder.name)
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        # Who came last goes first: a service has its broker until it has ended.
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._folder.cleanup()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cores: Collection[int] | None = None,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """A process; ``cores`` None: those of this one."""

        def settle() -> None:
            processes.die_with_parent()
            if cores is not None:
                os.sched_setaffinity(0, cores)

        with (self.folder / f"{name}.log").open("wb") as output:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=settle,
            )
        self._children.append(child)
        return child

    def tail(self, name: str) -> str:
        """The last of what a process said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def kafka(
        self,
        said: Callable[[str], None] = say,
        *,
        cores: Collection[int] | None = None,
        properties: str = "",
    ) -> str:
        """A broker that is ready; its bootstrap servers. ``properties``: beside the usual ones."""
        made = broker.Broker(
            jars.prepare(CACHE_DIR, said),
            self.folder / "kafka",
            port=free_port(),
            controller_port=free_port(),
        )
        made.prepare()
        with (made.folder / "server.properties").open("a") as file:
            file.write(properties)
        child = self.start("kafka", made.command(), cores=cores)
        broker.wait_ready(made.bootstrap, 60.0, lambda: child.poll() is None)
        return made.bootstrap


def ready(url: str, path: str, child: subprocess.Popen[bytes], timeout_s: float = 60.0) -> str:
    """The URL once it answers. Raises RuntimeError."""
    end_s = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end_s and child.poll() is None:
        try:
            with opener.open(url + path, timeout=5.0):
                return url
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url}{path} does not answer")
