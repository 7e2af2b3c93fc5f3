"""The loop: trajectories off the log, through the intake, into steps, out as versions.

    turn()  reads      trajectories as they come, commands                     (reader)
            decides    every record                                            (intake)
            trains     when a batch is full, or has waited batch_wait_s        (learner)
            publishes  after publish_steps steps, or when decisions waited account_s or are
                   account_records, or on order
            at drain   reads to the ends fixed then, trains what is there, accounts for the rest
            at freeze  trains nothing and lets a drain wait, until thaw; still decides and publishes

    at a rollback  of which this one's head was withdrawn: nothing more; the next Trainer goes on
            where the release says. What is to be skipped it accounts for before it trains
    after versions that nobody can make any more: goes on before them, at once and with a keyframe;
            what they had decided is decided again

One transaction holds a version, its Steps and the receipts of its account, so a crash anywhere
loses only work that the next process does again from the same records. ``crash`` is told every
commit point by name; kill tests end the process there:

    taken  stepped  encoded  published  checkpoint_begun  checkpoint_written  checkpoint_visible

For one thread. Called by :mod:`services.trainer.__main__`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
import logging
from pathlib import Path

from safetensors import SafetensorError

from services.trainer import metrics
from services.trainer.answer import Answer
from services.trainer.branch import branch, terms
from services.trainer.canary import CanaryLine
from services.trainer.checkpoint import Checkpoints, Crash
from services.trainer.demonstrations import limits_of
from services.trainer.intake import Intake
from services.trainer.learner import Learner, NonFinite
from services.trainer.ledger import Ledger
from services.trainer.lora import learner_of
from services.trainer.press import Press, open_publisher
from services.trainer.reader import Reader, Source, count
from services.trainer.records import step_of
from services.trainer.recovery import Recovery, meta_of, recover
from services.trainer.report import Report
from services.trainer.routes import Divergence, last_figures
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import SettingsError
from tailrace.events import ModelUpdate, Step
from tailrace.log.base import Log
from tailrace.stream import Writer, publish_schemas
from tailrace.topics import named
from tailrace.weights.releases import Releases
from tailrace.wire import Wire

_log = logging.getLogger(__name__)
_DRAIN_ANSWERS = 2
"""Fewer answers than this are not worth a step, even at a drain."""


class Trainer:
    """The trainer of one model. Making one fences the trainer before it and recovers its state."""

    def __init__(
        self,
        log: Log,
        wire: Wire,
        settings: Settings,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        crash: Crash = lambda point: None,
        learner_of: Callable[[Path, Settings], Learner] = learner_of,
        consumer_of: Callable[[Log], Source] = lambda log: log.consumer(),
    ) -> None:
        """Raises Fenced when a newer trainer is there, UpdateRefused when there is no version to
        go on from that can be replayed or read, SettingsError for a model folder that is none."""
        assert (folder := settings.model_dir) is not None
        self._settings = settings
        self._clock, self._wall_ms, self._crash = clock, wall_ms, crash
        # What cannot work here is to be found before a trainer that does is fenced.
        try:
            self._learner = learner_of(folder, settings)
            self._policy = self._learner.policy
            canary = CanaryLine(folder, self._policy.vocabulary)
            limits = limits_of(settings, folder, self._policy.vocabulary)
        except (OSError, ValueError, SafetensorError) as error:
            raise SettingsError(f"trainer.model_dir: {error}") from error
        self._intake = Intake(limits, settings)
        self._checkpoints = Checkpoints(
            settings.own_dir, kept=settings.checkpoints_kept, crash=crash
        )
        publish_schemas(log, prefix=settings.prefix)
        self._publisher = open_publisher(log, wire, settings)
        self._checkpoints.sweep()
        self._writer = Writer(log.producer(), wire, prefix=settings.prefix, source="trainer")
        self._press = Press(
            *(self._publisher, self._policy, canary, settings, folder),
            wall_ms=wall_ms,
            crash=crash,
        )
        self._steps: list[Step] = []
        """Taken since the last version."""
        self._trained: list[Answer] = []
        self._drain_ends: dict[int, int] | None = None
        self._skip_ends: dict[int, int] | None = None
        """Up to where records are to be decided before anything is trained or published."""
        self._report = Report(settings, self._writer, clock=clock, wall_ms=wall_ms)
        partitions = range(log.partitions(named(topics.TRAJECTORIES, settings.prefix)))
        self._releases = Releases(log, wire, model=settings.model, prefix=settings.prefix)
        self._releases.poll()
        ledger = Ledger(log, wire, settings=settings, limits=limits)
        self.recovery = self._recover(ledger, partitions)
        self._news = self.recovery.figures  # until a Step says them
        self._checkpoints.version = self.recovery.checkpoint_version
        self._reader = Reader(
            log,
            wire,
            model=settings.model,
            prefix=settings.prefix,
            intake=self._intake,
            writer=self._writer,
            clock=clock,
            wall_ms=wall_ms,
            consumer_of=consumer_of,
        )
        self._reader.keyframe = bool(self.recovery.unreadable)
        metrics.VERSION.set(self.head.version)

    @property
    def head(self) -> ModelUpdate:
        """The newest version of the chain that is trained on."""
        return self._press.head

    @property
    def withdrawn(self) -> bool:
        """Whether a release says to go on from another version than :attr:`head`, or from one that
        is not there: close this one, make another."""
        release = self._releases.followed
        if release is None:
            return False
        served = self._publisher.lineage.served(release)
        # Before the branch has begun, another order may say otherwise what becomes of the data.
        again = self.head.version == release.live and terms(release) != self._terms
        return served is None or served.version != self._served or again

    def turn(self, wait_s: float = 0.2) -> bool:
        """Read, then train or publish if it is time. Returns whether a step was taken."""
        stepped = False
        self._releases.poll()
        if self.withdrawn:
            return False
        full = self._intake.usable >= self._settings.batch_answers and not self._reader.frozen
        with self._report.waiting():
            drain = self._reader.read(0.0 if full else wait_s)
        if drain:
            self._drain_ends = self._reader.ends()
            _log.info("draining to=%s", self._drain_ends)
        now_s = self._clock()
        count(self._intake.refresh(now_s))
        usable, waiting_s = self._intake.usable, self._intake.waiting_s(now_s)
        metrics.HELD.set(usable)
        if self._skip_ends is not None:
            if self._reader.reached(self._skip_ends):
                self._skip_ends = None
            if self._skip_ends is None or self._intake.enough:
                self._publish()
            return False
        late = usable >= self._settings.min_answers and waiting_s >= self._settings.batch_wait_s
        if self._reader.frozen:
            pass  # what waits is held by the next version
        elif usable >= self._settings.batch_answers or late:
            self._train(self._intake.take(self._settings.batch_answers))
            stepped = True
        elif self._drain_ends is not None and self._reader.reached(self._drain_ends):
            stepped = self._drain()
        full = len(self._steps) >= self._settings.publish_steps or self._reader.keyframe
        if full or self._intake.due(self._clock()):
            self._publish()
        return stepped

    def stop(self) -> None:
        """A clean end: publish what waits, write a checkpoint, unless the head was withdrawn.
        :meth:`close` comes after it."""
        if self._skip_ends is None and (self._steps or self._intake.undone):
            self._publish()
        self._checkpoints.wait()
        if not self.withdrawn and self.head.version > self._checkpoints.version:
            self._checkpoint()

    def close(self) -> None:
        """Let go of the log; what is not published is done again by the next trainer."""
        log = (self._writer.producer.close, self._publisher.close, self._releases.close)
        with ExitStack() as last:  # what is entered last ends first
            for close in (self._report.close, *log, self._reader.close, self._checkpoints.close):
                last.callback(close)

    # Start

    def _recover(self, ledger: Ledger, partitions: range) -> Recovery:
        release, lineage = self._releases.followed, self._publisher.lineage
        self._terms, self._served = terms(release), 0
        """What :attr:`head` stands for: itself, or a version after it that nobody can make."""
        found = branch(lineage, release)
        if not found.chain:
            self._intake.ranges.begin(partitions, [])
            self._press.first(self._intake.account())
            self._intake.ages.version(0, changed=True)
            return Recovery()
        self._served = found.chain[-1].version
        known, store = self._intake.known, self._checkpoints
        recovery = recover(found, ledger, self._learner, known, store)
        if recovery.unreadable:
            found = branch(lineage, release, unreadable=len(recovery.unreadable))
        head = found.chain[-1]
        self._intake.ranges.begin(partitions, head.ranges)
        self._intake.ages, self._intake.rolled_back = found.ages, found.rolled_back
        self._intake.divergence = Divergence.of(last_figures(found.chain))
        self._press.begin(head)
        self._skip_ends = found.skip_to
        _log.info(
            "recovered version=%d step=%d replayed=%d reseeded=%s digest=%s skip_to=%s",
            *(head.version, self._learner.steps, recovery.replayed, recovery.reseeded, head.digest),
            self._skip_ends,
        )
        return recovery

    # Training

    def _drain(self) -> bool:
        """Train what is there, and leave nothing undecided. Returns whether a step was taken."""
        self._drain_ends = None
        stepped = False
        while not self.withdrawn and (
            left := self._intake.take(self._settings.batch_answers, whole=False)
        ):
            if len(left) < _DRAIN_ANSWERS:
                self._settle(left, "filtered", "too_few")
                continue
            self._train(left)
            stepped = True
            if len(self._steps) >= self._settings.publish_steps:
                self._publish()
        if self._steps or self._intake.undone:
            self._publish()
        return stepped

    def _train(self, answers: list[Answer]) -> None:
        self._crash("taken")
        settings = self._settings
        news = {} if self._steps else self._news  # a version's first Step says them
        number = self._learner.steps + 1
        try:
            figures = self._learner.step(answers, lr=settings.lr)
        except NonFinite as error:
            self._settle(answers, "filtered", "non_finite")
            self._report.skipped(number, answers, error)
            return
        self._crash("stepped")
        if "ess" in figures:  # demonstrations alone say nothing of it
            self._intake.divergence = Divergence.of(figures)
        self._settle(answers, "trained")
        step = step_of(
            settings,
            answers,
            self._report.whole(figures, news),
            number=number,
            version=self._press.next,
            reseeded="optimizer_reset" in news,
            now_ms=self._wall_ms(),
            processes=self._policy.processes,
        )
        self._steps.append(step)
        self._trained += answers
        self._report.stepped(step, answers)

    def _settle(self, answers: Sequence[Answer], outcome: str, reason: str | None = None) -> None:
        count(self._intake.settle(answers, self._clock(), outcome, reason))

    # Publishing

    def _publish(self) -> None:
        """One version of what was trained and decided since the last; none of a branch that was
        withdrawn meanwhile: the order did not name it, so its records would be skipped too."""
        self._releases.poll()
        if self.withdrawn:
            return
        began_s = self._clock()
        account = self._intake.account()
        self._reader.flush()
        changed = self._press.publish(
            account, self._steps, self._trained, keyframe=self._reader.keyframe
        )
        self._intake.published()
        self._intake.ages.version(self.head.version, changed)
        metrics.PUBLISH_S.observe(self._clock() - began_s)
        # After a reseeding nothing older leads here: without a checkpoint the next restart reseeds.
        first = bool(self._steps and self._news)
        self._news = {} if self._steps else self._news
        self._served = self.head.version
        self._steps, self._trained, self._reader.keyframe = [], [], False
        late = self.head.version - self._checkpoints.version >= self._settings.checkpoint_versions
        if first or late:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Of the version just published; none while the log does not hold all that it would say."""
        if self._skip_ends is not None or self._news or self._checkpoints.busy():
            return
        assert not self._steps
        meta = meta_of(self.head, self._learner, self._intake.known.memory)
        self._checkpoints.write(meta, self._learner.state())
