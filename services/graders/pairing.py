"""Prompts and outputs meet here, in whatever order they come. Pure, and bounded in memory.

A prompt is kept for :data:`KEEP_MS` of log time behind the oldest output that is not graded; an
output whose prompt was not met waits for it. What is given up is handed back as ``no_prompt``.
Whoever gives outputs stops while :attr:`Pairing.load` is 1 or more: what waits is not dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from tailrace.events import Output, Prompt
from tailrace.log.base import LogRecord
from tailrace.traces import of_record

KEEP_MS = 600_000
"""An answer that takes longer than this is not graded."""
MAX_PROMPTS = 100_000
MAX_PROMPT_BYTES = 128 * 1024 * 1024
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 128 * 1024 * 1024
WAIT_MS = 60_000
"""How long an output waits for its prompt, by the clock, where all prompts have been read."""


_ENCODER = msgspec.msgpack.Encoder()


class Kept(msgspec.Struct, frozen=True):
    """A prompt and where it lies."""

    offset: int
    time_ms: int
    prompt: Prompt
    size_bytes: int


class Waiting(msgspec.Struct, frozen=True):
    """An output without its prompt; ``since_ms`` it is read."""

    record: LogRecord
    """Where it lies; without its bytes, and of its headers with the trace alone."""
    output: Output
    since_ms: int
    size_bytes: int


class Pairing:
    """Prompts by partition, in the order of their offsets, and outputs that wait for one."""

    def __init__(
        self,
        *,
        max_prompts: int = MAX_PROMPTS,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._max_prompts, self._max_bytes = max_prompts, max_prompt_bytes
        self._max_waiting, self._max_waiting_bytes = max_waiting, max_waiting_bytes
        self._kept: dict[int, OrderedDict[str, Kept]] = {}
        self._waiting: dict[tuple[int, int], Waiting] = {}
        self._by_interaction: dict[str, list[tuple[int, int]]] = {}
        self._count, self._bytes, self._waiting_bytes = 0, 0, 0

    def take_prompt(self, record: LogRecord, prompt: Prompt) -> list[Waiting]:
        """Keep a prompt; the outputs that waited for it."""
        kept = self._of(record.partition)
        if prompt.interaction_id not in kept:
            # The engine's token ids are most of it, and no grader asks for them.
            content = prompt.content and msgspec.structs.replace(
                prompt.content, prompt_token_ids=None
            )
            slim = msgspec.structs.replace(prompt, content=content if prompt.learn else None)
            size_bytes = _size(slim)
            kept[prompt.interaction_id] = Kept(record.offset, record.time_ms, slim, size_bytes)
            self._count, self._bytes = self._count + 1, self._bytes + size_bytes
        while self._count > 1 and (
            self._count > self._max_prompts or self._bytes > self._max_bytes
        ):
            self._drop(min(self._fronts())[1])
        places = self._by_interaction.pop(prompt.interaction_id, [])
        return [self._pop(place) for place in places]

    def prompt_of(self, record: LogRecord, output: Output, now_ms: int) -> Prompt | None:
        """The prompt of an output. None: it is not there yet, and the output waits for it."""
        kept = self._of(record.partition).get(output.interaction_id)
        if kept is not None:
            return kept.prompt
        place = (record.partition, record.offset)
        content = output.content and msgspec.structs.replace(output.content, logprobs=None)
        slim = msgspec.structs.replace(output, content=content)
        trace = of_record(record.headers)
        headers = {"traceparent": trace.encode()} if trace else {}
        at = msgspec.structs.replace(record, value=None, headers=headers)
        self._waiting[place] = Waiting(at, slim, now_ms, size_bytes := _size(slim))
        self._waiting_bytes += size_bytes
        self._by_interaction.setdefault(output.interaction_id, []).append(place)
        return None

    def forget_prompts(self, partition: int, output_ms: int) -> None:
        """Drop what is too old for an output of log time ``output_ms`` and all behind it."""
        kept = self._kept.get(partition)
        while kept and next(iter(kept.values())).time_ms < output_ms - KEEP_MS:
            self._drop(partition)

    def needed_from(self, partition: int) -> int | None:
        """Offset of the oldest prompt that is kept."""
        kept = self._kept.get(partition)
        return next(iter(kept.values())).offset if kept else None

    def overdue(self, now_ms: int) -> bool:
        """Whether an output waits for too long."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and now_ms - oldest.since_ms >= WAIT_MS

    def give_up(self, now_ms: int, partitions: set[int]) -> Iterator[Waiting]:
        """Outputs that wait for too long; ``partitions`` are those whose prompts are all read."""
        for place, waiting in list(self._waiting.items()):
            if now_ms - waiting.since_ms < WAIT_MS:
                return
            if place[0] in partitions:
                self._pop(place)
                places = self._by_interaction[waiting.output.interaction_id]
                places.remove(place)
                if not places:
                    del self._by_interaction[waiting.output.interaction_id]
                yield waiting

    @property
    def waiting(self) -> int:
        """How many outputs wait."""
        return len(self._waiting)

    @property
    def load(self) -> float:
        """How much waits, where 1 is as much as may."""
        return max(
            len(self._waiting) / self._max_waiting, self._waiting_bytes / self._max_waiting_bytes
        )

    def _of(self, partition: int) -> OrderedDict[str, Kept]:
        # Its first item is found at once however many went before it; a dict's is not.
        return self._kept.setdefault(partition, OrderedDict())

    def _fronts(self) -> Iterator[tuple[int, int]]:
        for partition, kept in self._kept.items():
            if kept:
                yield next(iter(kept.values())).time_ms, partition

    def _pop(self, place: tuple[int, int]) -> Waiting:
        waiting = self._waiting.pop(place)
        self._waiting_bytes -= waiting.size_bytes
        return waiting

    def _drop(self, partition: int) -> None:
        kept = self._kept[partition]
        _, dropped = kept.popitem(last=False)
        self._count, self._bytes = self._count - 1, self._bytes - dropped.size_bytes


def _size(held: Prompt | Output) -> int:
    return len(_ENCODER.encode(held))
