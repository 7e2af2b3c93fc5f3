"""The host copy: the verified weights that vLLM is to serve, and which version that is.

    model-updates, releases ──> target ──> Store (apply, digest) ──> the engine's swap
                                               confirm / give up <──┘

In: the log. Out: the tensors of one version, whose digest is its manifest's. The target is the
version that the release in force asks for; where that is refused, the next before it. The copy
stays with what was served last until the swap of another is confirmed, and goes back to it where
the swap is given up. Called by :mod:`services.engine.engine`, on its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging

import numpy as np
from prometheus_client import Counter

from services.engine.refusals import Refusals
from tailrace.errors import LogError, UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import codec
from tailrace.weights.releases import Releases
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors, bits_dtype

logger = logging.getLogger(__name__)

LOG_TROUBLE = Counter("tailrace_engine_log_errors", "Turns in which the log did not answer")


_WARM_WEIGHTS = 1024


def warm(tensors: Mapping[str, Tensor]) -> None:
    """Apply a small delta of each dtype that a model has: the codec compiles its loops at first
    use, which takes seconds that the first update need not wait for."""
    old: Tensors = {}
    new: Tensors = {}
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        kind = bits_dtype(dtype)
        bits = np.zeros(_WARM_WEIGHTS * ITEM_BYTES[dtype] // kind.itemsize, kind)
        changed = bits.copy()
        changed[0] = 1
        old[dtype] = Tensor.of(dtype, (_WARM_WEIGHTS,), bits)
        new[dtype] = Tensor.of(dtype, (_WARM_WEIGHTS,), changed)
    codec.apply_delta(codec.encode_delta(old, new), old, with_undo=True)


class HostCopy:
    """Over one :class:`Store`. ``clock`` in seconds, monotonic."""

    def __init__(
        self,
        store: Store,
        subscriber: Subscriber,
        releases: Releases,
        refused: Refusals,
        *,
        clock: Callable[[], float],
        journal_bytes: int = 0,
        step: Callable[[str], None] = lambda point: None,
    ) -> None:
        self.refused = refused
        """Versions that are not tried now."""
        self.caught_up = False
        """Everything that the log had at the start is known."""
        self.apply_s = 0.0
        """Spent on fetching and applying since whoever serves set it to 0."""
        self._store, self._subscriber, self._releases = store, subscriber, releases
        self._clock, self._step = clock, step
        self._journal_bytes = journal_bytes
        self._safe = store.version
        """The version that :meth:`give_up` goes back to."""

    @property
    def version(self) -> int | None:
        """None: no version yet."""
        return self._store.version

    @property
    def digest(self) -> str:
        return self._store.digest

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Of that version, verified."""
        return self._store.tensors

    @property
    def manifest(self) -> ModelUpdate | None:
        """Of that version; None: the log has none."""
        return self._subscriber.lineage.updates.get(-1 if self.version is None else self.version)

    def follow(self, wait_s: float) -> None:
        """Hear of new versions and releases; waits up to ``wait_s`` for one. Raises LogError."""
        if not self.caught_up:
            self._subscriber.catch_up()
            self._releases.poll()
            self.caught_up = True
        self._subscriber.poll(wait_s)
        self._releases.poll()

    def advance(self) -> None:
        """Go to the target, over as many versions as it takes. What does not verify is refused."""
        self._check_base()
        target = self._target()
        if target is None or target == self._store.version:
            return
        began = self._clock()
        try:
            applied = self._subscriber.advance(self._store, target)
        except UpdateRefused as error:
            self.refused.add(target, error)
        except LogError as error:
            LOG_TROUBLE.inc()
            logger.warning("cannot fetch version=%d: %s", target, error)
        else:
            versions = [update.version for update in applied]
            logger.info("applied versions=%s digest=%.12s", versions, self._store.digest)
            self._step("applied")
        finally:
            self.apply_s += self._clock() - began

    def confirm(self) -> None:
        """It is served: the way back is to this version now."""
        self._store.confirm()
        self._safe = self._store.version

    @property
    def can_go_back(self) -> bool:
        """Is there another version to serve instead?"""
        return self._safe is not None and self._safe != self._store.version

    def give_up(self, why: Exception | str) -> None:
        """What is held cannot be served: refuse it and go back to what was, if there is any."""
        version = self._store.version
        assert version is not None
        if version not in self.refused:
            self.refused.add(version, why)
        self._store.rollback()

    def _check_base(self) -> None:
        """A copy that is not what the log says of its version is no base for anything."""
        known = self.manifest
        if known is not None and known.digest != self._store.digest:
            logger.warning("the folder is not version %d of the log", known.version)
            self._store, self._safe = Store.empty(journal_bytes=self._journal_bytes), None

    def _target(self) -> int | None:
        """The version to serve, of those that are known and not refused; None: no version yet."""
        lineage = self._subscriber.lineage
        served = lineage.served(self._releases.newest)
        for update in lineage.chain(served.version) if served is not None else ():
            if update.version not in self.refused:
                return update.version
        return None
