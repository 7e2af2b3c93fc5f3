"""The local runner: the whole system on one machine, on real parts.

Flow of :meth:`Runner.start`: lock the state directory → check memory and disk → prepare jars and
model → pick ports → write ``settings.toml`` → start the guardian → Kafka and Redis → topics → the
services → wait until each says it is ready. :meth:`Runner.stop`: services, then Redis, then Kafka.

Invariants. One runner per state directory (a lock that the guardian holds too, so it is free only
when the last child is gone). Every process is a descendant of the guardian
(:mod:`services.local.guardian`); nothing outlives the runner, however it ends. A second start on
the same state directory continues: same data, same ports where they are free.

Called by ``services/local/__main__.py`` and by the demo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import sys
import threading
import time

from services.local import broker, guardian, lock, preparation, processes, redis
from services.local.composition import Addresses, check, program
from services.local.programs import Program, Report
from services.local.settings import Settings
from services.local.status import Event, Status, last_line, listening, readiness

ROOT = Path(__file__).parents[2]
_KAFKA_START_S = 60.0
_REDIS_START_S = 20.0
_PROBE_S = 0.5


class StartError(RuntimeError):
    """The system could not be started; the message says which part and the end of its log."""


class Stopped(Exception):
    """``stopping`` was set while the system started."""


class Runner:
    """One system in one state directory.

    ``on_event`` is told everything that happens, from several threads. ``user`` is what the user
    set for the services (:func:`services.local.document.read`). ``stopping`` ends a start early,
    ``hurrying`` shortens the stop: what still runs is killed.
    ``commands`` puts another command line in place of ``python -m services.<name>``.
    """

    def __init__(
        self,
        settings: Settings,
        on_event: Callable[[Event], None],
        *,
        user: Mapping[str, object] | None = None,
        stopping: threading.Event | None = None,
        hurrying: threading.Event | None = None,
        commands: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.settings = settings
        self.state_dir = settings.state_dir.expanduser().absolute()
        self.settings_file = self.state_dir / "settings.toml"
        self.addresses: Addresses | None = None
        """Where everything listens; None until it is known."""
        self.lost = threading.Event()
        """Set when the guardian ended by itself: nothing runs any more."""
        self._on_event = on_event
        self._user = dict(user or {})
        self._stopping = stopping or threading.Event()
        self._hurrying = hurrying or threading.Event()
        self._commands = dict(commands or {})
        self._guardian: guardian.Guardian | None = None
        self._lock: int | None = None
        self._told = False
        self._stopped = threading.Event()
        self._status: dict[str, Status] = {}
        self._mutex = threading.Lock()

    def start(self) -> None:
        """Prepare and start everything; return when all services are ready.

        Raises SettingsError, lock.AlreadyRunning, preflight.Shortage, jars.PreparationError,
        ValueError (a port is taken), StartError or Stopped. Whatever is raised, :meth:`stop` has
        been done.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything, in order, and wait for it. May be called again."""
        if self._guardian is not None:
            self._stopped.set()
            self._say("runner", "stopping; Ctrl-C or SIGTERM again kills what still runs")
            self._guardian.end(self._kill_if_hurrying)
            self._guardian = None
            self._say("runner", "stopped")
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _kill_if_hurrying(self) -> bool:
        if self._hurrying.is_set():
            self._say("runner", "killing what still runs")
        return self._hurrying.is_set()

    def add(self, program: Program) -> None:
        """Run one more program under the same guardian (the demo's users)."""
        assert self._guardian is not None, "not started"
        with self._mutex:
            self._status[program.name] = Status(name=program.name, log=Path(program.log))
        self._guardian.add(program)

    def children(self) -> list[Status]:
        """How each child is now, in the order of their start. Reads logs, asks no child."""
        with self._mutex:
            statuses = list(self._status.values())
        for status in statuses:
            status.last_line = last_line(status.log)
        return statuses

    def _start(self) -> None:
        check(self.settings, self._user)
        self.state_dir.mkdir(parents=True, exist_ok=True)
        (self.state_dir / "logs").mkdir(exist_ok=True)
        self._lock = lock.take(self.state_dir, self._ending)
        mark = str(self.state_dir)
        if left := processes.sweep(mark):
            self._say("runner", f"ended {left} processes that an earlier run had left")
        prepared = preparation.prepare(
            self.settings,
            self._user,
            state_dir=self.state_dir,
            say=self._progress,
            pause=self._pause,
        )
        self.addresses = prepared.addresses
        self._guardian = guardian.Guardian(
            log=self.state_dir / "logs" / "guardian.log",
            mark=mark,
            cwd=ROOT,
            on_report=self._on_report,
            on_lost=self._on_lost,
            keep_open=[self._lock],
        )
        self._start_parts(self.addresses, prepared.jars)
        self._make_topics(self.addresses.kafka)
        for name in self.settings.services:
            command = self._commands.get(name, [sys.executable, "-m", f"services.{name}"])
            self.add(program(name, [*command, "--settings", str(self.settings_file)], self._log))
        threading.Thread(target=self._probe, args=[self.addresses], daemon=True).start()
        self._wait_ready()

    def _ending(self) -> None:
        if not self._told:
            self._say("runner", "an earlier run was killed, its children are ending")
        self._told = True
        self._pause(0.2)

    def _start_parts(self, addresses: Addresses, jar_folder: Path | None) -> None:
        if jar_folder is not None:
            kafka = broker.Broker(
                jar_folder,
                self.state_dir / "kafka",
                port=addresses.ports["kafka"],
                controller_port=addresses.ports["kafka_controller"],
            )
            kafka.prepare()
            self.add(program("kafka", kafka.command(), self._log))
        if not self.settings.redis:
            server = redis.Redis(self.state_dir / "redis", port=addresses.ports["redis"])
            self.add(program("redis", server.command(), self._log))
        try:
            broker.wait_ready(addresses.kafka, _KAFKA_START_S, lambda: self._alive("kafka"))
            self._ready("kafka")
            redis.wait_ready(addresses.redis, _REDIS_START_S, lambda: self._alive("redis"))
            self._ready("redis")
        except (TimeoutError, RuntimeError) as error:
            raise StartError(str(error)) from error

    def _make_topics(self, bootstrap: str) -> None:
        from tailrace.log.kafka import KafkaLog
        from tailrace.topics import TOPICS

        log = KafkaLog(bootstrap)
        log.create(
            TOPICS,
            prefix=self.settings.prefix,
            session_partitions=self.settings.session_partitions,
        )
        log.close()

    def _probe(self, addresses: Addresses) -> None:
        """Ask whoever runs and is not ready, as long as the system runs."""
        while not self._stopped.wait(_PROBE_S):
            with self._mutex:
                statuses = list(self._status.values())
            for status in statuses:
                if status.ready or status.state != "running":
                    continue
                if status.name in ("kafka", "redis"):
                    reason = listening(addresses.ports[status.name])
                elif status.name in self.settings.services:
                    reason = readiness(addresses.health(status.name))
                else:
                    continue  # added by others; nobody waits for it
                status.reason = reason or ""
                if reason is None and status.state == "running":
                    self._ready(status.name)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.settings.start_timeout_s
        statuses = [self._status[name] for name in self.settings.services]
        while waiting := [status for status in statuses if not status.ready]:
            self._pause(0.1)
            for status in waiting:
                if status.state == "refused":
                    raise StartError(
                        f"{status.name} refuses its settings:\n{self._tail(status.name)}"
                    )
            if time.monotonic() > deadline:
                late = ", ".join(f"{status.name} ({status.reason})" for status in waiting)
                tails = "\n".join(self._tail(status.name) for status in waiting)
                raise StartError(
                    f"not ready after {self.settings.start_timeout_s:.0f} s: {late}\n{tails}"
                )

    def _alive(self, name: str) -> bool:
        if self._stopping.is_set():
            raise Stopped
        status = self._status.get(name)
        return status is None or (status.state != "refused" and status.restarts < 3)

    def _ready(self, name: str) -> None:
        if name in self._status:
            with self._mutex:
                self._status[name].ready = True
                self._status[name].reason = ""
            self._say(name, "ready")
            if name == "dashboard" and self.addresses is not None:
                self._say(name, f"see it live at {self.addresses.dashboard}")

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped
        if self.lost.is_set():
            raise StartError("the guardian process ended")

    def _log(self, name: str) -> Path:
        return self.state_dir / "logs" / f"{name}.log"

    def _tail(self, name: str) -> str:
        try:
            return self._log(name).read_text(errors="replace")[-2000:]
        except FileNotFoundError:
            return ""

    def _progress(self, name: str, text: str) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._say(name, text)

    def _say(self, name: str, text: str) -> None:
        self._on_event(Event(time_s=time.time(), name=name, text=text))

    def _on_report(self, report: Report) -> None:
        with self._mutex:
            status = self._status.get(report.name)
            if status is not None:
                status.follow(report)
        text = f"running, pid {report.pid}" if report.state == "running" else report.text
        self._on_event(Event(time_s=time.time(), name=report.name, text=text, report=report))

    def _on_lost(self) -> None:
        self.lost.set()
        count = processes.sweep(str(self.state_dir))
        self._say("runner", f"the guardian was killed; ended {count} processes that it had left")
