"""One grader: reads prompts and outputs, gives answers to its worker, writes its word as feedback.

One round: what the worker said is written, what was written is done, records are read while the
worker has room; only prompts while too many outputs wait for theirs. Every ``commit_s`` the
commit, in numbered steps that a crash may fall between:

1. feedback is handed to the producer (at any time)
2. it is acknowledged, and its answer done
3. the group's offsets of ``outputs`` are committed: below the oldest answer that is not done
4. those of ``prompts``: below the oldest prompt that such an answer may need

Invariant: no offset is committed past an answer that was neither graded (its feedback acknowledged)
nor skipped, given up or left without a word, each with its counter. After a crash the answers since
3 are graded again; ids and cached grades make the same records of them. For one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
import logging
import queue
import time

from services.graders import item as items
from services.graders import metrics
from services.graders.item import Item, Verdict
from services.graders.pairing import KEEP_MS, Pairing
from services.graders.progress import Progress
from services.graders.spec import Grader as Spec
from services.graders.worker import Answers, Worker
from tailrace import ids, topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Feedback, Output, Prompt
from tailrace.log.base import Log, LogRecord, Position
from tailrace.stream import Decoder, Writer
from tailrace.topics import named

_LAG_S = 5.0
_log = logging.getLogger(__name__)


class Grader:
    """One grader without its thread. ``reached`` is told the steps (tests end the process there).

    ``partitions`` are those it takes; None: all.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        mark: str,
        worker: Worker,
        answers: Answers,
        log: Log,
        decoder: Decoder,
        writer: Writer,
        *,
        prefix: str = "",
        partitions: Collection[int] | None = None,
        pairing: Pairing | None = None,
        commit_s: float = 1.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        reached: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.name = name
        self._spec, self._mark = spec, mark
        self._worker, self._answers = worker, answers
        self._log, self._decoder, self._writer = log, decoder, writer
        self._commit_ms, self._clock_ms, self._reached = int(commit_s * 1000), clock_ms, reached
        self._outputs, self._prompts = named(topics.OUTPUTS, prefix), named(topics.PROMPTS, prefix)
        self._count = log.partitions(self._outputs)
        if log.partitions(self._prompts) != self._count:
            raise LogError(f"{self._prompts} and {self._outputs} differ in partitions")
        self._taken = sorted(range(self._count) if partitions is None else partitions)
        if not self._taken:
            raise LogError(f"no partition of {self._outputs} falls to this share")
        self._pairing = pairing or Pairing()
        self._paused = False
        """Whether outputs are left where they are."""
        self._written: queue.SimpleQueue[tuple[Item, Future[Position]]] = queue.SimpleQueue()
        self._given = 0
        """Answers with the worker or on their way to the log."""
        self._consumer = log.consumer(group=f"{prefix}tailrace-graders-{name}")
        self._progress = {p: Progress(at) for p, at in self._start(self._outputs, 0).items()}
        prompts = self._start(self._prompts, KEEP_MS)
        self._consumer.assign(
            {(self._prompts, p): at for p, at in prompts.items()}
            | {(self._outputs, p): progress.position for p, progress in self._progress.items()}
        )
        # At once, prompts first: a kill before the first commit must not move either start.
        outputs = {p: made.position for p, made in self._progress.items()}
        self._consumer.commit(self._prompts, prompts)
        self._consumer.commit(self._outputs, outputs)
        self._committed = outputs, prompts
        self._committed_ms = self._lag_ms = clock_ms()

    @property
    def lag(self) -> int:
        """Outputs on the log that are not done. Asks the log."""
        ends = self._log.ends(self._outputs)
        return sum(max(0, ends[p] - made.position) for p, made in self._progress.items())

    def step(self, timeout_s: float) -> None:
        """One round; waits up to ``timeout_s`` for something to do. Raises LogError."""
        full = self._given >= self._worker.room
        wait_s = timeout_s if full else 0.0
        while (found := self._answers.get(wait_s)) is not None:
            self._take(*found)
            wait_s = 0.0
        self._settle()
        if not full:
            # With something under way, its answer is not to wait for records that do not come.
            self._read(min(timeout_s, 0.02) if self._given else timeout_s)
        now_ms = self._clock_ms()
        if self._pairing.overdue(now_ms):
            self._give_up(now_ms)
        if self._pairing.load <= 0.5 if self._paused else self._pairing.load >= 1:
            self._turn()
        if now_ms - self._committed_ms >= self._commit_ms:
            self.commit()

    def commit(self) -> None:
        """Commit what is done, and say how far behind this is. Raises LogError."""
        self._settle()
        self._committed_ms = self._clock_ms()
        outputs, prompts = {}, {}
        for partition, progress in self._progress.items():
            self._see_position(partition)
            outputs[partition] = progress.position
            self._pairing.forget_prompts(partition, progress.time_ms)
            needed = self._pairing.needed_from(partition)
            read_to = self._consumer.position(self._prompts, partition)
            prompts[partition] = read_to if needed is None else needed
        self._commit(outputs, prompts)
        if self._committed_ms - self._lag_ms >= _LAG_S * 1000:
            self._lag_ms = self._committed_ms
            metrics.LAG.labels(self.name).set(self.lag)
            metrics.WAITING.labels(self.name).set(self._pairing.waiting)

    def close(self) -> None:
        """Commit what is done and let go; the worker is its owner's to close."""
        while (found := self._answers.get(0.0)) is not None:
            self._take(*found)
        self._writer.producer.flush()
        self.commit()
        self._consumer.close()

    def _start(self, topic: str, back_ms: int) -> dict[int, int]:
        """Where this group left off; what it never read begins as far back as an answer matters."""
        low, ends = self._log.starts(topic), self._log.ends(topic)
        known = self._consumer.committed(topic, self._taken)
        since_ms = max(0, int(max(0.0, self._clock_ms() - self._spec.max_age_s * 1000)) - back_ms)
        fresh = self._log.offsets_at(topic, since_ms) if len(known) < len(self._taken) else low
        expired = sum(max(0, low[p] - offset) for p, offset in known.items())
        if expired and topic == self._outputs:
            metrics.SKIPPED.labels(self.name, "expired").inc(expired)
            _log.warning("answers expired unread grader=%s count=%d", self.name, expired)
        return {p: min(max(known.get(p, fresh[p]), low[p]), ends[p]) for p in self._taken}

    def _commit(self, outputs: dict[int, int], prompts: dict[int, int]) -> None:
        if (outputs, prompts) == self._committed:
            return
        self._reached(2)
        self._consumer.commit(self._outputs, outputs)
        self._reached(3)
        self._consumer.commit(self._prompts, prompts)
        self._reached(4)
        self._committed = outputs, prompts

    def _see_position(self, partition: int) -> None:
        if not self._paused:
            position = self._consumer.position(self._outputs, partition)
            self._progress[partition].passed(position)

    def _turn(self) -> None:
        """Leave the outputs where they are, or go on with them."""
        for partition in self._progress:
            self._see_position(partition)
        self._paused = not self._paused
        reading = {
            (self._prompts, p): self._consumer.position(self._prompts, p) for p in self._taken
        }
        if self._paused:
            metrics.PAUSES.labels(self.name).inc()
        else:
            reading |= {(self._outputs, p): made.read_to for p, made in self._progress.items()}
        self._consumer.assign(reading)
        word = "pause" if self._paused else "go on"
        _log.info("outputs %s grader=%s waiting=%d", word, self.name, self._pairing.waiting)

    def _read(self, timeout_s: float) -> None:
        for record in self._consumer.poll(timeout_s, max_records=100):
            try:
                if record.topic == self._prompts:
                    self._take_prompt(record)
                else:
                    self._take_output(record)
            except InvalidRecord as error:
                # Rewards is the one to bury it; here there is only nothing to grade.
                self._skip(record, error)

    def _take_prompt(self, record: LogRecord) -> None:
        prompt = self._decoder.decode(record)
        assert isinstance(prompt, Prompt)
        items.check_place(record, prompt.interaction_id, self._count)
        for waiting in self._pairing.take_prompt(record, prompt):
            try:
                self._give(prompt, waiting.output, waiting.record)
            except InvalidRecord as error:
                self._skip(waiting.record, error)

    def _take_output(self, record: LogRecord) -> None:
        progress = self._progress[record.partition]
        progress.begin(record.offset, record.time_ms)
        output = self._decoder.decode(record)
        assert isinstance(output, Output)
        items.check_place(record, output.interaction_id, self._count)
        items.check_output(output)
        if not items.drawn(output.interaction_id, output.choice, self._spec.share):
            raise InvalidRecord("not_drawn")
        self._check_age(record)
        now_ms = self._clock_ms()
        prompt = self._pairing.prompt_of(record, output, now_ms)
        if prompt is not None:
            self._give(prompt, output, record)

    def _check_age(self, record: LogRecord) -> None:
        if self._clock_ms() - record.time_ms > self._spec.max_age_s * 1000:
            raise InvalidRecord("too_old")

    def _give(self, prompt: Prompt, output: Output, record: LogRecord) -> None:
        item = items.make(prompt, output, record)
        self._given += 1
        self._worker.give(item)

    def _skip(self, record: LogRecord, error: InvalidRecord) -> None:
        if record.topic == self._prompts:
            metrics.SKIPPED.labels(self.name, f"prompt_{error.reason}").inc()
        else:
            metrics.SKIPPED.labels(self.name, error.reason).inc()
            self._progress[record.partition].done(record.offset)
        _log.debug(
            "skipped grader=%s source=%s/%d/%d reason=%s",
            self.name,
            record.topic,
            record.partition,
            record.offset,
            error,
        )

    def _give_up(self, now_ms: int) -> None:
        ends = self._log.ends(self._prompts)
        read = {p for p in self._taken if self._consumer.position(self._prompts, p) >= ends[p]}
        for waiting in self._pairing.give_up(now_ms, read):
            self._skip(waiting.record, InvalidRecord("no_prompt"))

    def _take(self, item: Item, verdict: Verdict) -> None:
        if verdict.number is None:
            if verdict.reason is None:
                metrics.SKIPPED.labels(self.name, "nothing_to_say").inc()
            else:
                metrics.FAILED.labels(self.name, verdict.reason).inc()
            return self._done(item)
        written = self._writer.write(
            topics.FEEDBACK,
            feedback(self.name, self._spec.metric, self._mark, item, verdict),
            traceparent=verdict.traceparent,
        )
        self._reached(1)
        written.add_done_callback(lambda future: self._written.put((item, future)))

    def _settle(self) -> None:
        while not self._written.empty():
            item, future = self._written.get()
            future.result()  # LogError: it is not on the log, and nothing may be committed past it
            metrics.GRADED.labels(self.name).inc()
            self._done(item)

    def _done(self, item: Item) -> None:
        self._given -= 1
        self._progress[item.partition].done(item.offset)


def feedback(name: str, metric: str, mark: str, item: Item, verdict: Verdict) -> Feedback:
    """The record that says it: the same for the same verdict, whenever and wherever it is made."""
    return Feedback(
        feedback_id=ids.feedback_of(item.interaction_id, f"{name}.{item.choice}.{mark}"),
        interaction_id=item.interaction_id,
        choice=item.choice,
        event_time_ms=item.time_ms,
        tenant=ids.tenant_of(item.interaction_id),
        kind="number",
        metric=metric,
        number=verdict.number,
        source="grader",
        grader=name,
    )
