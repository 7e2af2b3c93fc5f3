"""Rollouts on a thread, over a log in memory and a stand-in for vLLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
import threading
from typing import Any

from services.rollouts.rollouts import Rollouts
from services.rollouts.settings import Settings
from tailrace import events, topics
from tailrace.log.base import Log
from tailrace.stream import Decoder, Writer, read_all
from tailrace.tasks import benchmark
from tailrace.topics import Topic
from tailrace.wire import Wire

WIRE = Wire()


class Stage:
    """Settings, a log and the folders of one test."""

    def __init__(self, folder: Path, log: Log, url: str, tasks: list[Path], **given: Any) -> None:
        fields: dict[str, Any] = {
            "engines": {"engine-0": url},
            "tasks": tuple(tasks),
            "state_dir": folder / "state",
            "model": "m",
            "share": 0.5,
            "max_num_seqs": 8,
            "group_size": 2,
            "poll_s": 0.02,
        }
        self.settings = Settings(**fields | given)
        self.log = log
        log.create(topics.TOPICS, session_partitions=2)
        self.errors: list[BaseException] = []

    @contextmanager
    def running(self, reached: Callable[[int], None] = lambda step: None) -> Iterator[Rollouts]:
        self.settings.check()
        producer = self.log.producer()
        rollouts = Rollouts(
            self.settings,
            benchmark.load_all(self.settings.tasks),
            Writer(producer, WIRE, source="rollouts"),
            reached=reached,
        )
        stop = threading.Event()

        def run() -> None:
            try:
                rollouts.run(stop)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield rollouts
        finally:
            stop.set()
            thread.join(30)
            producer.close()
            assert not thread.is_alive()

    def records(self, topic: Topic) -> list[Any]:
        decoder = Decoder(self.log, WIRE)
        return [decoder.decode(record) for record in read_all(self.log, topic.name)]

    def groups(self) -> dict[str, list[events.Prompt]]:
        """Prompts by group."""
        found: dict[str, list[events.Prompt]] = {}
        for prompt in self.records(topics.PROMPTS):
            found.setdefault(prompt.group_id, []).append(prompt)
        return found
