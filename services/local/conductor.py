"""Leads one demo from start to summary. See :mod:`services.local.demo` for the acts.

Everything happens on one thread, in :meth:`Conductor._until`: it moves what is new (the runner's
events, users' lines, records of the log) into the picture, draws, and asks whether to go on. Only
the runner's start and stop run beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import math
import queue
import signal
import sys
import threading
import time
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from services.local import processes, summary, view
from services.local.composition import program
from services.local.lines import LineLog
from services.local.picture import Picture
from services.local.programs import Program
from services.local.runner import Runner
from services.local.settings import Settings
from services.local.status import Event
from services.local.watch import Watch
from tailrace import audit, topics
from tailrace.deadline import Deadline, window_s
from tailrace.events import Command
from tailrace.log.base import Log
from tailrace.log.kafka import KafkaLog
from tailrace.report import Report
from tailrace.stream import Writer, publish_schemas
from tailrace.wire import Wire

_FIRST_ANSWER_S = 180.0
_LAST_ANSWERS_S = 60.0
_JOIN_S = 60.0
"""How long votes and answers may take to become trajectories once the users are gone."""
_DECIDE_S = 90.0
"""How long the trainer may take to decide what is left."""
_DRAIN_AGAIN_S = 20.0
_DRAW_S = 0.5
_LINE_S = 5.0


class Aborted(Exception):
    """Stopped by a signal, without a drain."""


class Conductor:
    """One run. ``finish`` ends it early but in order, ``abort`` now; ``hurry`` kills what is still
    stopping."""

    def __init__(
        self,
        settings: Settings,
        user: dict[str, Any],
        arguments: argparse.Namespace,
        *,
        finish: threading.Event,
        abort: threading.Event,
        hurry: threading.Event,
    ) -> None:
        self._settings = settings
        self._arguments = arguments
        self._finish = finish
        self._abort = abort
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._runner = Runner(settings, self._events.put, user=user, stopping=abort, hurrying=hurry)
        self._picture = Picture()
        self._console = Console(stderr=arguments.json, highlight=False)
        self._live: Live | None = None
        self._watch: Watch | None = None
        self._lines: LineLog | None = None
        self._begun_s = time.monotonic()
        self._drawn_s = self._said_s = -math.inf

    def run(self) -> dict[str, Any]:
        """The whole demo; its summary. Raises Aborted, or what the runner's start raises."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        report: Report | None = None
        try:
            self._beside(self._runner.start)
            report = self._play()
        finally:
            self._phase("stopping")
            # It is about to be over: whatever signal comes now is for the stop.
            self._finish.set()
            self._abort.set()
            self._beside(self._runner.stop, abortable=False)
            if self._live is not None:
                self._live.stop()
        wall_s = time.monotonic() - self._begun_s
        result = summary.summary(self._picture, report, wall_s=wall_s, taste=self._arguments.taste)
        for text in summary.in_words(result):
            self._console.print(text)
        if report is not None and not report.ok:
            for text in audit.in_words(report):
                self._console.print(f"audit: {text}")
        return result

    def _play(self) -> Report:
        assert self._runner.addresses is not None
        log = KafkaLog(self._runner.addresses.kafka)
        settings = self._settings
        self._watch = Watch(log, prefix=settings.prefix, registry=settings.registry)
        try:
            self._perform()
            self._drain(log)
            return self._audit(log)
        finally:
            # Clients go before their broker does, else they complain about it.
            self._watch.close()
            self._watch = None
            log.close()

    def _perform(self) -> None:
        assert self._runner.addresses is not None
        arguments = self._arguments
        options = {
            "--url": f"{self._runner.addresses.gateway}/v1",
            "--model": self._settings.model,
            "--taste": arguments.taste,
            "--in-flight": arguments.in_flight,
            "--rate": arguments.rate,
            "--seed": arguments.seed,
        }
        argv = [sys.executable, "-m", "services.local.users"]
        argv += [str(part) for option in options.items() for part in option]
        users = self._users_program(argv)
        self._lines = LineLog(users.log)
        self._phase("users are asking")
        self._runner.add(users)
        if not self._until(self._answered_or_finished, _FIRST_ANSWER_S):
            raise RuntimeError(f"no answer within {_FIRST_ANSWER_S:.0f} s")
        self._phase("learning")
        self._until(self._finish.is_set, arguments.minutes * 60)
        self._phase("users are leaving")
        for child in self._runner.children():
            if child.name == "users" and child.pid is not None and child.state == "running":
                processes.send(child.pid, signal.SIGTERM)
        self._until(lambda: self._picture.users_ended, _LAST_ANSWERS_S)

    def _answered_or_finished(self) -> bool:
        return bool(self._picture.answers) or self._finish.is_set()

    def _users_program(self, argv: list[str]) -> Program:
        made = program("users", argv, lambda name: self._runner.state_dir / "logs" / f"{name}.log")
        # Not started again: its end is part of the play, and a crash of it must be seen.
        return msgspec.structs.replace(made, restart=False)

    def _drain(self, log: Log) -> None:
        picture = self._picture
        self._phase("draining: votes are joined")
        self._until(
            lambda: not picture.feedback_waiting() and not picture.outputs_waiting(), _JOIN_S
        )
        self._phase("draining: the last answers are trained")
        deadline_s = time.monotonic() + _DECIDE_S
        while picture.trajectories_waiting() and time.monotonic() < deadline_s:
            self._command(log, "drain")
            self._until(lambda: not picture.trajectories_waiting(), _DRAIN_AGAIN_S)

    def _command(self, log: Log, command: str) -> None:
        publish_schemas(log, prefix=self._settings.prefix)
        producer = log.producer()
        try:
            wire = Wire(self._settings.registry)
            writer = Writer(producer, wire, prefix=self._settings.prefix, source="demo")
            order = Command(
                model=self._settings.model,
                event_time_ms=_now_ms(),
                command=command,
                reason="the demo ends",
            )
            writer.write(topics.CONTROL, order)
            producer.flush()
        finally:
            producer.close()

    def _audit(self, log: Log) -> Report:
        self._phase("auditing")
        self._draw()
        settings = self._settings
        wire = Wire(settings.registry)
        deadline = Deadline(window_s=window_s(self._runner.settings_file))
        read = audit.read(
            log,
            wire,
            model=settings.model,
            prefix=settings.prefix,
            deadline=deadline,
            trust=settings.trusted_keys,
        )
        report = read.report()
        verdict = "balances" if report.ok else f"found {len(report.problems)} problems"
        self._picture.say(f"the audit of version {report.head} {verdict}")
        return report

    def _beside(self, call: Callable[[], None], *, abortable: bool = True) -> None:
        failed: list[BaseException] = []

        def target() -> None:
            try:
                call()
            except BaseException as error:  # handed to the thread that waits
                failed.append(error)

        thread = threading.Thread(target=target, name="runner")
        thread.start()
        self._until(lambda: not thread.is_alive(), math.inf, watched=False)
        thread.join()
        self._take_events()
        if failed and self._abort.is_set() and abortable:
            raise Aborted from failed[0]
        if failed:
            raise failed[0]

    def _until(self, done: Callable[[], bool], timeout_s: float, *, watched: bool = True) -> bool:
        """Go on until ``done()``; False when it took too long. ``watched``: abort, loss end it."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline_s:
                return False
            if watched and self._abort.is_set():
                raise Aborted
            if watched and self._runner.lost.is_set():
                raise RuntimeError("the system was lost: its guardian ended")
            self._take_events()
            if self._lines is not None:
                for line in self._lines.new():
                    self._picture.user(line)
            if self._watch is not None and watched:
                for record, event in self._watch.poll(0.2):
                    self._picture.record(record, event)
            else:
                time.sleep(0.1)
            self._draw()
        return True

    def _take_events(self) -> None:
        while not self._events.empty():
            event = self._events.get()
            report = event.report
            if report is not None:
                self._picture.process(report.name, report.state, report.pid, report.restarts)
            elif event.text == "ready":
                self._picture.ready(event.name)
            self._picture.say(f"{event.name}: {event.text}")

    def _phase(self, phase: str) -> None:
        self._picture.phase = phase
        if self._live is None:
            self._say(phase)

    def _say(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._begun_s:6.1f} s  {text}", soft_wrap=True)

    def _draw(self) -> None:
        now_s = time.monotonic()
        if self._live is not None:
            if now_s - self._drawn_s >= _DRAW_S:
                self._drawn_s = now_s
                self._live.update(self._screen(), refresh=True)
            return
        while self._picture.news:
            self._say(self._picture.news.popleft())
        if self._picture.answers and now_s - self._said_s >= _LINE_S:
            self._said_s = now_s
            self._console.print(view.line(self._picture, now_s - self._begun_s), soft_wrap=True)

    def _screen(self) -> Any:
        seconds = time.monotonic() - self._begun_s
        title = (
            f"tailrace demo  {seconds:.0f} s  the users' taste is {self._arguments.taste!r}, "
            "the model is not told"
        )
        addresses = self._runner.addresses
        if addresses is not None and addresses.dashboard is not None:
            title = f"{title}  {addresses.dashboard}"
        return view.screen(self._picture, title=title, hints=self._hints(), now_ms=_now_ms())

    def _hints(self) -> list[str]:
        where = ""
        if self._arguments.state_dir is not None:
            where = f" --state-dir {self._arguments.state_dir}"
        hints = [
            f"tailrace status{where}",
            f"tailrace tail receipts --follow{where}",
            f"tailrace tail model-updates --since 10m{where}",
            f"tailrace audit{where}",
        ]
        for name in ("trainer", "rewards", "engine"):
            process = self._picture.processes.get(name)
            if process is not None and process.pid and process.state != "waiting":
                hints.append(f"kill -9 {process.pid}   (the {name}: nothing is lost)")
        return hints


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
