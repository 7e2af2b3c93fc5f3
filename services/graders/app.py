"""All graders of a process: for each a thread, a producer, a worker and a consumer of its own.

They share nothing but the process: what one waits for holds up no other. One that cannot go on (the
log fails it) ends the process, whose supervisor starts it again; a function or a judge that fails
is not such a thing. Called by ``__main__``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import threading

from services.graders.cache import Cache
from services.graders.functions import Functions
from services.graders.grader import Grader
from services.graders.judge import Judging
from services.graders.settings import Settings
from services.graders.spec import Function, Judge, Spec
from services.graders.worker import Answers, Worker
from tailrace import traces
from tailrace.errors import SettingsError
from tailrace.log.base import Log
from tailrace.stream import Decoder, Writer
from tailrace.topics import OUTPUTS, named
from tailrace.wire import Wire

_STEP_S = 0.2


def share_of(text: str) -> tuple[int, int]:
    """``i/n`` as two numbers. Raises SettingsError.

    >>> share_of("1/3")
    (1, 3)
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SettingsError(f"graders.share: {text!r} is not i/n with i below n")
    return int(number), int(count)


class Graders:
    """Every grader of a spec, on threads. ``reached`` is told the steps of all commits.

    Raises SettingsError for a share that is none, or traces that need what is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        spec: Spec,
        log: Log,
        *,
        reached: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._settings, self._log, self._reached = settings, log, reached
        self._share = share_of(settings.share)
        self._specs: dict[str, Function | Judge] = {**spec.functions, **spec.judges}
        self._stop = threading.Event()
        self._started: set[str] = set()
        self._error: BaseException | None = None
        self._traces = traces.start("graders", settings.otlp_endpoint)

    def ready(self) -> str | None:
        """None when every grader reads, else which does not."""
        waiting = sorted(self._specs.keys() - self._started)
        return f"starting {', '.join(waiting)}" if waiting else None

    def run(self, stop: threading.Event) -> None:
        """Grade until ``stop``. Raises what ended a grader."""
        threads = [
            threading.Thread(target=self._run, args=[name], name=f"grader-{name}")
            for name in self._specs
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(_STEP_S) and not self._stop.is_set():
            pass
        self._stop.set()
        for thread in threads:
            thread.join()
        if self._traces is not None:
            self._traces.close()
        if self._error is not None:
            raise self._error

    def _run(self, name: str) -> None:
        try:
            producer = self._log.producer()
            try:
                wire = Wire(self._settings.registry)
                writer = Writer(producer, wire, prefix=self._settings.prefix, source="graders")
                self._grade(name, wire, writer)
            finally:
                producer.close()
        except BaseException as error:  # told to the main thread, which raises it
            self._error = self._error or error
            self._stop.set()

    def _grade(self, name: str, wire: Wire, writer: Writer) -> None:
        settings = self._settings
        number, count = self._share
        partitions = self._log.partitions(named(OUTPUTS, settings.prefix))
        answers = Answers()
        worker, mark = self._worker(name, answers)
        try:
            grader = Grader(
                name,
                self._specs[name],
                mark,
                worker,
                answers,
                self._log,
                Decoder(self._log, wire, prefix=settings.prefix),
                writer,
                prefix=settings.prefix,
                partitions=[p for p in range(partitions) if p % count == number],
                commit_s=settings.commit_s,
                reached=self._reached,
            )
            self._started.add(name)
            while not self._stop.is_set():
                grader.step(_STEP_S)
        finally:
            worker.close()
        grader.close()

    def _worker(self, name: str, answers: Answers) -> tuple[Worker, str]:
        settings, spec = self._settings, self._specs[name]
        cache = Cache(settings.state_dir / "graders" / f"{name}.sqlite", settings.cache_rows)
        if isinstance(spec, Judge):
            key = settings.keys[spec.key] if spec.key is not None else None
            judging = Judging(
                name, spec, key, cache, answers.put, answers.crash, traces=self._traces
            )
            return judging, spec.hash()
        code = Path(spec.file).read_bytes()
        worker = Functions(name, spec, code, cache, answers.put, answers.crash, self._traces)
        return worker, spec.hash(code)
