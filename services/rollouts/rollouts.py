"""The shell of the rollouts: HTTP to the engines, the verifiers, Kafka, the book and the clock.

Each engine is asked every ``poll_s`` how busy it is. What the desk gives out is sent, what it wants
broken off is cancelled. A whole group goes, in numbered steps that a crash may fall between:

1. it is scored, and all its records are made
2. the book keeps them
3. they are appended
4. the log has acknowledged every one
5. the book says that the group is done

Invariant: of a group either nothing is on the log, or all of it is or will be after a restart,
under the same ids with the same content. One event loop, and one thread for the verifiers. The log
failing ends the process; an engine or a verifier that fails does not. Called by ``__main__``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
import logging
import threading
import time

import httpx

from services.rollouts import metrics, records, spans
from services.rollouts.book import Book, Record
from services.rollouts.desk import Ask, Desk, Group
from services.rollouts.engine import Broke, Engine
from services.rollouts.schedule import Schedule
from services.rollouts.settings import Settings
from tailrace import events, topics, traces
from tailrace.errors import InvalidRecord
from tailrace.stream import Writer
from tailrace.tasks.benchmark import Benchmark
from tailrace.tasks.scoring import Reply, Scorer
from tailrace.topics import MAX_RECORD_BYTES
from tailrace.wire import Wire

_ROOM_BYTES = 64 * 1024
"""Left for key and headers of the largest record."""
_LAST_S = 10.0
"""How long groups that are being appended may take at the end; a restart appends the rest."""
_log = logging.getLogger(__name__)
_TOPICS = {
    events.Prompt: topics.PROMPTS,
    events.Output: topics.OUTPUTS,
    events.Feedback: topics.FEEDBACK,
}


class Rollouts:
    """One process. ``reached`` is told the steps (tests end the process there).

    Raises SettingsError where the book, a benchmark or a verifier cannot be had, or traces need
    what is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        benchmarks: Sequence[Benchmark],
        writer: Writer,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        reached: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._settings, self._writer = settings, writer
        self._clock_ms, self._reached = clock_ms, reached
        self._wire = Wire(settings.registry)
        schedule = Schedule(benchmarks, seed=settings.seed)
        self._scorers = {one.name: Scorer(one) for one in benchmarks}
        self._book = Book(settings.state_dir / "rollouts")
        self._desk = Desk(
            schedule,
            share=settings.share,
            slots=settings.max_num_seqs,
            group_size=settings.group_size,
            token_ms=settings.token_ms,
            done=self._book,
        )
        self._engines: dict[str, Engine] = {}
        self._tokens: dict[tuple[str, str], list[int]] = {}
        """What the model reads of each task that was asked."""
        self._asked: dict[Ask, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        """Groups between steps 1 and 5."""
        self._wake = asyncio.Event()
        self._traces = traces.start("rollouts", settings.otlp_endpoint)
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="verifiers")
        self._error: BaseException | None = None
        self._heard: set[str] = set()

    def ready(self) -> str | None:
        """None when an engine has said how busy it is, else which have not."""
        return None if self._heard else f"waiting for {', '.join(self._settings.engines)}"

    def run(self, stop: threading.Event) -> None:
        """Sample until ``stop``. Raises LogError."""
        try:
            asyncio.run(self._run(stop))
        finally:
            for scorer in self._scorers.values():
                scorer.kill()
            self._judge.shutdown()
            for scorer in self._scorers.values():
                scorer.close()
            if self._traces is not None:
                self._traces.close()
            self._book.close()

    async def _run(self, stop: threading.Event) -> None:
        limits = httpx.Limits(max_connections=None, keepalive_expiry=3.0)
        async with httpx.AsyncClient(timeout=None, trust_env=False, limits=limits) as http:
            settings = self._settings
            for name, url in settings.engines.items():
                self._engines[name] = Engine(
                    name,
                    url,
                    http,
                    temperature=settings.temperature,
                    priority=settings.priority,
                    answer_s=settings.answer_s,
                    clock_ms=self._clock_ms,
                )
            await self._repeat()
            watches = [asyncio.create_task(self._watch(name)) for name in self._engines]
            for watch in watches:
                watch.add_done_callback(self._failed)
            try:
                while not stop.is_set() and self._error is None:
                    self._turn()
                    await self._pause(settings.poll_s)
            finally:
                for task in [*watches, *self._asked.values()]:
                    task.cancel()
                await asyncio.gather(*watches, *self._asked.values(), return_exceptions=True)
                if self._ending:
                    await asyncio.wait(self._ending, timeout=_LAST_S)
        if self._error is not None:
            raise self._error

    async def _repeat(self) -> None:
        """Append again what an earlier process may have appended in part."""
        for number, kept in self._book.kept.items():
            await self._append(kept, {})  # the book does not keep their traces
            self._book.finish(number)
            metrics.REPEATED.inc()
            _log.info("group appended again number=%d records=%d", number, len(kept))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _watch(self, name: str) -> None:
        """Ask one engine again and again how busy it is."""
        said = True
        while True:
            began_ms = self._clock_ms()
            load = await self._engines[name].load()
            now_ms = self._clock_ms()
            self._desk.read(name, load, began_ms)
            metrics.ALLOWED.labels(name).set(self._desk.allowed(name, now_ms))
            metrics.IN_FLIGHT.labels(name).set(self._desk.in_flight(name))
            if load is None:
                metrics.UNREADY.labels(name).inc()
                self._heard.discard(name)
            else:
                self._heard.add(name)
                self._wake.set()
            if said != (load is not None):
                said = not said
                _log.info(
                    "engine %s how busy it is engine=%s", "says" if said else "no more says", name
                )
            await asyncio.sleep(self._settings.poll_s)

    def _turn(self) -> None:
        """Break off and send what the desk says."""
        for ask in self._desk.yields():
            if ask.number in self._desk.open:
                metrics.YIELDED.labels(ask.engine).inc()
            self._asked[ask].cancel()
        for ask in self._desk.asks(self._clock_ms()):
            group = self._desk.open[ask.number]
            self._asked[ask] = asyncio.create_task(self._sample(ask, group))
            self._asked[ask].add_done_callback(functools.partial(self._over, ask))

    def _over(self, ask: Ask, done: asyncio.Task[None]) -> None:
        # The desk may have given it out again since this one failed: then that one has the place.
        if self._asked.get(ask) is done:
            del self._asked[ask]
        if done.cancelled():
            self._desk.returned(ask)
        else:
            self._failed(done)
        self._wake.set()

    def _failed(self, done: asyncio.Task[None]) -> None:
        """What a task raised ends the process."""
        self._ending.discard(done)
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._error = self._error or error
        self._wake.set()

    async def _sample(self, ask: Ask, group: Group) -> None:
        engine, item = self._engines[ask.engine], group.item
        key = (item.benchmark.name, item.task.id)
        try:
            if key not in self._tokens:
                self._tokens[key] = await engine.tokens(item.task)
            name, model = self._interaction(group, ask.sample), self._settings.model
            with spans.request(self._traces, model, item.task, name) as made:
                answer = made.answer = await engine.answer(
                    self._tokens[key], item.benchmark.verifier.max_tokens, made.traceparent
                )
        except Broke as error:
            _log.warning("no answer engine=%s group=%d reason=%s", ask.engine, ask.number, error)
            if self._desk.broke(ask, final=error.final):
                self._drop(ask.number, error.reason)
            else:
                metrics.RETRIES.labels(ask.engine, error.reason).inc()
            return
        metrics.ANSWER_S.observe((answer.ended_ms - answer.began_ms) / 1000)
        whole = self._desk.answered(ask, answer)
        fault = answer.fault()
        if fault is not None and ask.number in self._desk.open:
            self._drop(ask.number, fault)
        elif whole is not None:
            ending = asyncio.create_task(self._end(whole))
            self._ending.add(ending)
            ending.add_done_callback(self._failed)

    def _drop(self, number: int, reason: str) -> None:
        benchmark = self._desk.open[number].item.benchmark.name
        self._desk.drop(number, self._clock_ms())
        self._book.finish(number)
        metrics.DROPPED.labels(benchmark, reason).inc()
        _log.warning("group dropped benchmark=%s number=%d reason=%s", benchmark, number, reason)

    async def _end(self, group: Group) -> None:
        """Steps 1 to 5 of a whole group."""
        benchmark, task = group.item.benchmark, group.item.task
        replies = [
            Reply(
                task=task,
                text=answer.text,
                finish_reason=answer.finish_reason,
                token_ids=answer.token_ids,
            )
            for answer in group.answers
            if answer is not None
        ]
        loop = asyncio.get_running_loop()
        scorer = self._scorers[benchmark.name]
        said = await loop.run_in_executor(self._judge, scorer.score, replies)
        scores = [one.number for one in said if one.number is not None]
        if len(scores) < len(said):
            why = next(one.reason for one in said if one.number is None)
            return self._drop(group.number, f"verifier_{why}")
        made = records.of_group(
            group,
            scores,
            tenant=self._settings.tenant,
            identity=self._book.identity,
            model=self._settings.model,
            temperature=self._settings.temperature,
        )
        try:
            largest = max(len(self._wire.encode(record)) for record in made)
        except InvalidRecord as error:
            return self._drop(group.number, error.reason)
        if largest > MAX_RECORD_BYTES - _ROOM_BYTES:
            return self._drop(group.number, "too_large")
        self._reached(1)
        self._book.keep(group.number, made)
        self._reached(2)
        traceparents = {
            self._interaction(group, sample): answer.traceparent
            for sample, answer in enumerate(group.answers)
            if answer is not None
        }
        await self._append(made, traceparents)
        self._book.finish(group.number)
        self._reached(5)
        self._desk.acknowledged(group.number)
        metrics.GROUPS.labels(benchmark.name).inc()
        for score in scores:
            metrics.SCORE.labels(benchmark.name).observe(score)

    def _interaction(self, group: Group, sample: int) -> str:
        tenant, identity = self._settings.tenant, self._book.identity
        return records.interaction(group, sample, tenant=tenant, identity=identity)

    async def _append(self, made: Sequence[Record], traceparents: Mapping[str, str]) -> None:
        """Steps 3 and 4. ``traceparents``: by interaction. Raises LogError."""
        waiting = [
            self._writer.write(
                _TOPICS[type(record)],
                record,
                traceparent=traceparents.get(record.interaction_id or ""),
            )
            for record in made
        ]
        self._reached(3)
        for future in waiting:
            await asyncio.wrap_future(future)
        self._reached(4)
