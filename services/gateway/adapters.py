"""LoRA adapters under their names, ``<model>@<version>``, as the engine has them loaded.

In: the model that a request names, the engine's Deltas. Out: the adapter's version, and Deltas that
carry it: the engine's own label is that of the weights beneath.

What is loaded is asked of the engine, and remembered for a second. Whether an answer was the
adapter's to its end is asked at its end: the engine takes an adapter away before other weights come
(DESIGN section 6), and a request that is under way then goes on with both. Called by
:mod:`services.gateway.app`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
import re

import msgspec

from services.gateway.answers import Delta, EngineFailed
from services.gateway.engine import Engine
from services.gateway.errors import ApiError
from tailrace.events import VersionSpan

_FRESH_S = 1.0


class Adapters:
    """Those of one model on one engine."""

    def __init__(self, engine: Engine, *, model: str, now_s: Callable[[], float]) -> None:
        """``now_s`` is a monotonic clock."""
        self._engine = engine
        self._model = model
        self._now_s = now_s
        self._name = re.compile(rf"{re.escape(model)}@(0|[1-9][0-9]{{0,17}})")
        self._loaded: list[int] | None = None
        """None: the engine does not say."""
        self._until_s: float | None = None

    async def loaded(self) -> list[int]:
        """Versions of the adapters that may be asked for now, in order."""
        return await self._known() or []

    async def find(self, name: str) -> int | None:
        """The version that a model's name asks for; None: the model itself.

        Of an engine that does not say what it has the answer is left to it, as it may be starting.
        Raises ApiError (404) for a model that is not there.
        """
        if name == self._model:
            return None
        asked = self._name.fullmatch(name)
        if asked is not None:
            version, loaded = int(asked.group(1)), await self._known()
            if loaded is None or version in loaded:
                return version
        raise ApiError(
            404,
            f"the model {name!r} does not exist; this server has {self._model!r}",
            code="model_not_found",
            param="model",
        )

    def name(self, version: int | None) -> str:
        """The name that asks for a version."""
        return self._model if version is None else f"{self._model}@{version}"

    async def answer(self, version: int, deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
        """The Deltas of an adapter's answer, their spans its own."""
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.spans:
                    spans = await self._spans(version, delta.spans)
                    delta = msgspec.structs.replace(delta, spans=spans)
                yield delta

    async def _spans(self, version: int, spans: list[VersionSpan]) -> list[VersionSpan]:
        beneath = [span.version for span in spans if span.version is not None]
        # Numbers go back on a way back alone: then other weights were there in between.
        own = beneath == sorted(beneath) and version in (await self._ask() or [])
        return [
            VersionSpan(
                version=version if own and span.version is not None else None,
                start=span.start,
                end=span.end,
            )
            for span in spans
        ]

    async def _known(self) -> list[int] | None:
        if self._until_s is not None and self._now_s() < self._until_s:
            return self._loaded
        return await self._ask()

    async def _ask(self) -> list[int] | None:
        try:
            found = map(self._name.fullmatch, await self._engine.models())
            self._loaded = sorted(int(name.group(1)) for name in found if name is not None)
        except EngineFailed:
            self._loaded = None
        self._until_s = self._now_s() + _FRESH_S
        return self._loaded
