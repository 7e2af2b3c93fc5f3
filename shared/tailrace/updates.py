"""Model updates for anyone: every version of a model, verified, as numpy arrays.

    with tailrace.ModelUpdates("127.0.0.1:9092", model="smollm2-135m-instruct") as updates:
        for update in updates:                    # each new one, as it comes
            print(update.version, len(update.tensors), update.manifest.figures)
        before = updates.at(update.version - 1)   # any version that is kept; back: no download

Reads ``model-updates`` and ``model-chunks``, writes nothing. Starts from the last keyframe, or from
a model folder whose digest is that of some version. A version is given out only after its digest
matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import logging
import math
from pathlib import Path
import time

import msgspec

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.base import Log
from tailrace.weights import folder as folders
from tailrace.weights.lineage import Lineage
from tailrace.weights.store import JOURNAL_BYTES, Store
from tailrace.weights.subscriber import Progress, Subscriber
from tailrace.weights.tensors import Tensor, digest
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 300.0


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
    then each new one. ``trust``: files of public keys (``tailrace keys``); versions that none of
    them signed are as if they were not there. ``journal_bytes``: memory for stepping back without a
    download. ``progress``: called while bytes arrive.

    These are the versions that the trainer published, not what is served: for that read the topic
    ``releases`` and ask ``updates.lineage.served(release)`` with the newest one, then :meth:`at`.

    A version that does not verify is not given out: it is logged, counted
    (``tailrace_weights_updates_refused_total``) and tried again with the next one, and every
    ``retry_s`` and then less often: bytes that could not be read may come back. Raises LogError
    when the broker fails; iterating may then go on. SettingsError for a key file that is none.
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
        trust: Iterable[Path | str] = (),
        journal_bytes: int = JOURNAL_BYTES,
        progress: Callable[[Progress], None] = lambda progress: None,
        retry_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(kafka, str):
            from tailrace.log.kafka import KafkaLog

            self._own: Log | None = KafkaLog(kafka)
            log: Log = self._own
        else:
            self._own, log = None, kafka
        self._subscriber = Subscriber(
            log, Wire(registry), model=model, prefix=prefix, trust=trust, progress=progress
        )
        self._folder = folder
        self._since = since
        self._journal_bytes = journal_bytes
        self._store: Store | None = None
        self._clock = clock
        self._retry_s = self._wait_s = retry_s
        self._tried: int | None = None
        """The head after which nothing (more) could be given, until there is a newer one, or..."""
        self._again_s = math.inf

    @property
    def lineage(self) -> Lineage:
        """All manifests that were taken so far: versions, their bases, what is served."""
        return self._subscriber.lineage

    def poll(self, timeout_s: float) -> Update | None:
        """The next version; None when there is none within ``timeout_s``."""
        deadline_s = self._clock() + timeout_s
        store = self._begin()
        while True:
            head, now_s = self.lineage.head, self._clock()
            if head is not None and (head.version != self._tried or now_s >= self._again_s):
                update = self._next(store, head)
                if update is not None:
                    return update
                self._tried = head.version
            left_s = deadline_s - self._clock()
            wait_s = min(left_s, self._again_s - self._clock())
            if not self._subscriber.poll(max(0.0, wait_s)) and left_s <= 0:
                return None

    def at(self, version: int) -> Update:
        """Any version that is still kept, on any branch: back through the undo journal where that
        reaches, forward from what is held, or from a keyframe, whichever is quickest.

        What iterating gives next stays as it was. Raises UpdateRefused when the version cannot be
        made (``gap``: it is not there, or its bytes are deleted), LogError.
        """
        store = self._begin()
        if version not in self.lineage.updates:
            self._subscriber.catch_up()
        self._subscriber.advance(store, version)
        store.confirm()
        return Update(self.lineage.updates[version], store.tensors, store.files)

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

    def _begin(self) -> Store:
        """The store; at first with what the folder holds, if that is a version of the model."""
        if self._store is not None:
            return self._store
        self._subscriber.catch_up()
        self._store = Store.empty(journal_bytes=self._journal_bytes)
        if self._folder is not None:
            tensors = folders.read(self._folder)
            mark, files = digest(tensors), folders.read_files(self._folder)
            known = {update.digest for update in self.lineage.updates.values()}
            if mark in known or not known:
                self._store = Store(tensors, None, mark, files, journal_bytes=self._journal_bytes)
            else:
                text = "folder=%s holds no version of the model: starting from a keyframe"
                _log.warning(text, self._folder)
        return self._store

    def _next(self, store: Store, head: ModelUpdate) -> Update | None:
        """The first version on the way to the head that verifies; None when none (more) does."""
        wanted = [head]
        if self._since is not None:
            chain = list(self.lineage.chain(head.version))
            wanted = [update for update in reversed(chain) if update.version > self._since]
        self._again_s = math.inf
        for update in wanted:
            try:
                self._subscriber.advance(store, update.version)
            except UpdateRefused as error:
                _log.warning("refused version=%d: %s", update.version, error)
                self._again_s = self._clock() + self._wait_s
                continue
            store.confirm()
            self._since = update.version
            self._again_s, self._wait_s = math.inf, self._retry_s
            return Update(update, store.tensors, store.files)
        if wanted:
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        return None
