"""LoRA adapters beside what is served: the newest for its weights, and the one before.

In: the adapters of the lineage, the digest of what vLLM serves. Out: adapters loaded into vLLM
under ``<model>@<version>``, older ones unloaded, acks. Nothing stands still for it, and the label
of what is served does not change.

Invariants: a name is one version's for ever; an adapter is loaded after it was verified, and only
beside exactly the weights that it was made for; what vLLM has loaded is asked of it, never
remembered over a restart, and only when all that was sent before has ended. The folder of one that
was unloaded stays for an hour, or until that vLLM ended: for answers that are under way vLLM reads
it again, and ends where it cannot. Called by :mod:`services.engine.engine`, on its thread.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
from pathlib import Path
import shutil

from prometheus_client import Counter

from services.engine.acks import Acks
from services.engine.admin import Admin, Refused, Trouble
from services.engine.refusals import Refusals
from services.engine.swap import Doubt
from tailrace.errors import LogError, UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import adapters
from tailrace.weights.subscriber import Subscriber

logger = logging.getLogger(__name__)

ADAPTERS = Counter("tailrace_engine_adapters", "Adapters by what became of them", ["outcome"])

KEPT = 2
"""The live one and the one before, whose requests may still be on their way."""
FOLDER_S = 3600.0
"""For how long an unloaded adapter's folder stays."""
_AGAIN_S = 5.0
_LEAVE_S = 1.0
"""Between two tries to unload."""
_MISSES = 3
"""How often in a row vLLM may keep an adapter that is to go."""


class Adapters:
    """Of one vLLM. ``enabled``: it was started for adapters; else each is refused and said so."""

    def __init__(
        self,
        admin: Admin,
        subscriber: Subscriber,
        acks: Acks,
        *,
        model: str,
        folder: Path,
        clock: Callable[[], float],
        enabled: bool = True,
    ) -> None:
        self._admin, self._subscriber, self._acks = admin, subscriber, acks
        self._prefix = f"{model}@"
        self._folder = folder
        self._clock = clock
        self._enabled = enabled
        self._loaded: set[int] | None = None
        """None: vLLM is to be asked."""
        self._said: set[int] = set()
        """Acked as loaded since this vLLM came up."""
        self._refused = Refusals(acks, clock, ADAPTERS, prefix="adapter: ")
        self._left: dict[str, float] = {}
        """Folders of adapters that are not loaded, and since when that is known."""
        self._news = False
        self._misses = 0
        self._not_before = 0.0

    @property
    def under_way(self) -> bool:
        """May an answer with an adapter be running? Of one that was unloaded too, as long as its
        folder stays."""
        return bool(self._loaded or self._left)

    def forget(self) -> None:
        """Another vLLM, or one that nobody knows."""
        self._loaded = None
        self._said = set()

    def end(self) -> None:
        """vLLM ended, and every answer with it: nobody reads the folders any more."""
        self.forget()
        self._left = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    def leave(self, base_digest: str) -> bool:
        """Other weights come: take away what does not belong to them. Answers that are under way
        go on with both.

        False: not all of it is gone, so the other weights must wait. Raises Doubt when that was
        the answer too often.
        """
        if self._misses and self._clock() < self._not_before:
            return False
        gone = self._bring(self._wanted(base_digest), load=False)
        self._not_before = self._clock() + (0.0 if gone else _LEAVE_S)
        self._misses = 0 if gone else self._misses + 1
        if self._misses < _MISSES:
            return gone
        self._misses = 0
        raise Doubt("adapters of other weights stay loaded")

    def turn(self, base_digest: str) -> bool:
        """Load and unload what is due; was there anything to say?"""
        if self._clock() < self._not_before:
            return False
        self._news = False
        if not self._bring(self._wanted(base_digest), load=True):
            self._not_before = self._clock() + _AGAIN_S
        return self._news

    def _wanted(self, base_digest: str) -> dict[int, ModelUpdate]:
        lineage = self._subscriber.lineage
        found = adapters.newest(lineage, base_digest, len(lineage.adapters))
        fit = [update for update in found if update.version not in self._refused]
        return {update.version: update for update in fit[-KEPT:]}

    def _bring(self, wanted: dict[int, ModelUpdate], *, load: bool) -> bool:
        """False: it is to be done again."""
        if self._loaded is None and not wanted and not self._folder.exists():
            return True  # never had any
        try:
            if self._enabled and self._loaded is None:
                self._loaded = self._ask()
            for update in wanted.values() if load else ():
                self._load(update)
            for version in sorted((self._loaded or set()) - wanted.keys()):
                self._unload(version)
            self._sweep(self._loaded or set())
        except Trouble as error:  # whoever watches vLLM will find out what it has
            logger.warning("adapters: %s", error)
            self._loaded = None
            return False
        except (LogError, OSError) as error:  # the log is away, or there is no room for the folder
            logger.warning("cannot have an adapter: %s", error)
            return False
        return True

    def _ask(self) -> set[int]:
        self._admin.weight_info()  # a load whose answer is missing has ended, then
        names = [n.removeprefix(self._prefix) for n in self._admin.models() if "@" in n]
        return {int(name) for name in names if name.isdigit()}

    def _sweep(self, loaded: set[int]) -> None:
        for path in self._folder.glob("*"):
            if path.name.isdigit() and int(path.name) in loaded:
                self._left.pop(path.name, None)
            elif self._clock() >= self._left.setdefault(path.name, self._clock()) + FOLDER_S:
                shutil.rmtree(path, ignore_errors=True)
                del self._left[path.name]

    def _load(self, update: ModelUpdate) -> None:
        version = update.version
        try:
            if not self._enabled:
                raise UpdateRefused("kind", "engine.adapters is off")
            assert self._loaded is not None
            if version not in self._loaded:
                path = self._folder / str(version)
                adapters.write(path, adapters.fetch(self._subscriber, update))
                self._admin.load_adapter(f"{self._prefix}{version}", str(path))
                self._loaded.add(version)
                ADAPTERS.labels("loaded").inc()
                logger.info("adapter loaded version=%d base=%s", version, update.base_version)
        except (UpdateRefused, Refused) as error:
            shutil.rmtree(self._folder / str(version), ignore_errors=True)
            self._refused.add(version, error)
            self._news = True
            return
        if version not in self._said:
            self._acks.send("loaded", version, update.digest)
            self._said.add(version)
            self._news = True

    def _unload(self, version: int) -> None:
        assert self._loaded is not None
        name = f"{self._prefix}{version}"
        try:
            self._admin.unload_adapter(name)
        except Refused as error:
            if name in self._admin.models():
                raise
            logger.warning("adapter version=%d was gone: %s", version, error)
        self._loaded.discard(version)
        ADAPTERS.labels("unloaded").inc()
        logger.info("adapter unloaded version=%d", version)
