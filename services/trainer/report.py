"""What is said of a step besides the ledger: a log line, metrics, alarms, a span, and how long data
was waited for. Owned by :mod:`services.trainer.trainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
import logging

from services.trainer import metrics, spans
from services.trainer.alarms import Alarms
from services.trainer.answer import Answer
from services.trainer.figures import Figures, Idle
from services.trainer.settings import Settings
from tailrace import topics, traces
from tailrace.errors import LogError
from tailrace.events import Alarm, Step
from tailrace.log.base import Position
from tailrace.stream import Writer

_log = logging.getLogger(__name__)


class Report:
    """The reports of one trainer."""

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._writer, self._wall_ms = writer, wall_ms
        self._alarms = Alarms(settings)
        self._idle = Idle(clock)
        self._traces = traces.start("trainer", settings.otlp_endpoint)
        self.waiting = self._idle.waiting

    def whole(self, figures: Figures, news: Figures) -> Figures:
        """A step's figures with those that are of the trainer."""
        return figures | {"idle_share": self._idle.share()} | news

    def stepped(self, step: Step, answers: Sequence[Answer] = ()) -> None:
        """It was taken with these answers, just now."""
        metrics.stepped(step.figures, step.inputs)
        shown = " ".join(f"{name}={value:.4g}" for name, value in step.figures.items())
        _log.info("trained step=%d %s", step.step, shown)
        for alarm in self._alarms.stepped(step.step, step.figures, now_ms=self._wall_ms()):
            say(self._writer, alarm)
        if self._traces is not None:
            spans.stepped(self._traces, step, answers, now_ms=self._wall_ms())

    def close(self) -> None:
        """Send the spans that wait."""
        if self._traces is not None:
            self._traces.close()

    def skipped(self, number: int, answers: Sequence[Answer], error: ArithmeticError) -> None:
        """It was not finite."""
        _log.error("step skipped step=%d answers=%d: %s", number, len(answers), error)
        metrics.STEPS.labels("non_finite").inc()
        for alarm in self._alarms.skipped(number, str(error), now_ms=self._wall_ms()):
            say(self._writer, alarm)


def say(writer: Writer, alarm: Alarm) -> None:
    """Send an alarm. Nothing waits for it: one that the log does not take is counted and said."""
    try:
        writer.write(topics.ALARMS, alarm).add_done_callback(_note_loss)
    except LogError as error:
        _lost(error)


def _note_loss(written: Future[Position]) -> None:
    error = written.exception()
    if error is not None:
        _lost(error)


def _lost(error: BaseException) -> None:
    metrics.ALARMS_LOST.inc()
    _log.warning("alarm lost: %s", error)
