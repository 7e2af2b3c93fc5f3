"""Model updates for anyone: every new version of a model, verified, as numpy arrays.

    for update in tailrace.ModelUpdates("127.0.0.1:9092", model="smollm2-135m-instruct"):
        print(update.version, len(update.tensors), update.manifest.figures)

Reads ``model-updates`` and ``model-chunks``, writes nothing. Starts from the last keyframe, or from
a model folder whose digest is that of some version. A version is given out only after its digest
matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import logging
from pathlib import Path
import time

import msgspec

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.base import Log
from tailrace.weights import folder as folders
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensor, digest
from tailrace.wire import Wire

_log = logging.getLogger(__name__)


class Update(msgspec.Struct, frozen=True, eq=False):
    """One verified version."""

    manifest: ModelUpdate
    """Base, digest, ranges of the log that went in, figures, ..."""
    tensors: Mapping[str, Tensor]
    """By name; ``.numpy()`` is a view (bfloat16 as uint16 bits), ``.float32()`` a copy."""
    files: Mapping[str, bytes]
    """Config and tokenizer files."""

    @property
    def version(self) -> int:
        return self.manifest.version

    def save(self, folder: Path | str) -> None:
        """Write a model folder that transformers and vLLM load, whole or not at all."""
        folders.write(folder, self.tensors, self.files)


class ModelUpdates:
    """Iterates over the versions of a model; ``next()`` waits for one. A context manager.

    ``kafka``: bootstrap servers, or a Log. ``folder``: a model folder to start from instead of a
    download. ``since``: give every later version that leads to the newest one; None: the newest,
    then each new one.

    Iterating raises LogError when the broker fails. A version that does not verify is not given
    out: it is logged, counted (``tailrace_weights_updates_refused_total``) and tried again with the
    next one.
    """

    def __init__(
        self,
        kafka: str | Log,
        model: str,
        *,
        folder: Path | str | None = None,
        since: int | None = None,
        prefix: str = "",
        registry: str | None = None,
    ) -> None:
        if isinstance(kafka, str):
            from tailrace.log.kafka import KafkaLog

            self._own: Log | None = KafkaLog(kafka)
            log: Log = self._own
        else:
            self._own, log = None, kafka
        self._subscriber = Subscriber(log, Wire(registry), model=model, prefix=prefix)
        self._folder = folder
        self._since = since
        self._store: Store | None = None
        self._tried: int | None = None

    def poll(self, timeout_s: float) -> Update | None:
        """The next version; None when there is none within ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        if self._store is None:
            self._subscriber.catch_up()
            self._store = self._first_store()
        while True:
            head = self._subscriber.lineage.head
            if head is not None and head.version != self._tried:
                update = self._next(self._store, head)
                if update is not None:
                    return update
                self._tried = head.version
            left_s = deadline - time.monotonic()
            if not self._subscriber.poll(max(0.0, left_s)) and left_s <= 0:
                return None

    def __iter__(self) -> Iterator[Update]:
        return self

    def __next__(self) -> Update:
        while True:
            update = self.poll(1.0)
            if update is not None:
                return update

    def close(self) -> None:
        """Let go of the broker."""
        self._subscriber.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> ModelUpdates:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _first_store(self) -> Store:
        """What the folder holds, if that is a version of the model; else nothing."""
        if self._folder is None:
            return Store.empty()
        tensors = folders.read(self._folder)
        mark = digest(tensors)
        files = folders.read_files(self._folder)
        for update in reversed(self._subscriber.lineage.updates.values()):
            if update.digest == mark and (self._since is None or update.version <= self._since):
                return Store(tensors, update.version, mark, files)
        _log.warning(
            "folder=%s holds no version of the model: starting from a keyframe", self._folder
        )
        return Store.empty()

    def _next(self, store: Store, head: ModelUpdate) -> Update | None:
        """The first version on the way to the head that verifies; None when none (more) does."""
        wanted = [head]
        if self._since is not None:
            chain = list(self._subscriber.lineage.chain(head.version))
            wanted = [update for update in reversed(chain) if update.version > self._since]
        for update in wanted:
            try:
                self._subscriber.advance(store, update.version)
            except UpdateRefused as error:
                _log.warning("refused version=%d: %s", update.version, error)
                continue
            store.confirm()
            self._since = update.version
            return Update(update, store.tensors, store.files)
        return None
