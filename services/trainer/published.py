"""The weights of a chain's versions as everybody else gets them: from the log, or from a store.

Asked by :mod:`services.trainer.recovery` for the newest version first, then for those before it,
where that one cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.trainer.settings import Settings
from tailrace.events import ModelUpdate
from tailrace.log.base import Log
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensors, digest
from tailrace.wire import Wire


class Published:
    """One chain, oldest first. A context manager; for one thread.

    ``base`` are the weights of the model folder: where they are the chain's first version, it need
    not be read. What was read on the way to a version serves the next one that is asked for.
    """

    def __init__(
        self, log: Log, wire: Wire, settings: Settings, chain: Sequence[ModelUpdate], base: Tensors
    ) -> None:
        self._subscriber = Subscriber(log, wire, model=settings.model, prefix=settings.prefix)
        for update in chain:  # the publisher's word, not whatever else says to be of this model
            self._subscriber.lineage.add(update)
        begin = digest(base)
        self._store = Store(base, 0 if chain[0].digest == begin else None, begin)

    def at(self, version: int) -> Tensors:
        """Its weights, verified. Raises UpdateRefused, LogError."""
        try:
            self._subscriber.advance(self._store, version)
        finally:
            self._store.confirm()
        return dict(self._store.tensors)

    def close(self) -> None:
        """Let go of the log."""
        self._subscriber.close()

    def __enter__(self) -> Published:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
