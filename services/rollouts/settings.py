"""Settings of the rollouts: ``[rollouts]`` in the file, ``TAILRACE_ROLLOUTS_*`` above it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tailrace import ids
from tailrace.errors import InvalidRecord, SettingsError
from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """What the rollouts want to know."""

    tasks: tuple[Path, ...] = ()
    """Folders with a benchmark each, see :mod:`tailrace.tasks.benchmark`. At least one."""
    engines: dict[str, str] = msgspec.field(
        default_factory=lambda: {"engine-0": "http://127.0.0.1:8001"}
    )
    """Id of each engine, as it signs its acks, to the address of its vLLM."""
    share: float = 0.25
    """Of an engine's idle slots, how many may be taken: above 0, and 1 at most."""
    max_num_seqs: int = 64
    """Slots of each vLLM: its ``--max-num-seqs``, which it does not say itself; or less."""
    token_ms: float | None = None
    """Where vLLM's mean time between tokens, of all that it answers, is longer, ours become fewer:
    free slots are not free compute, least of all on a CPU. None: the share of slots alone."""
    group_size: int = 8
    """Answers to one task that make a group."""
    temperature: float = 1.0
    """Of the sampling; nothing else reshapes the distribution."""
    priority: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of our requests where vLLM runs with ``--scheduling-policy priority``: above 0, so that live
    ones (0) go first. None: vLLM schedules by arrival, and refuses any other."""
    tenant: str = "default"
    """Whose the sessions are."""
    seed: int = 0
    """Of the order of the tasks, another one each time round."""
    poll_s: float = 0.25
    """How often the engines are asked how busy they are."""
    answer_s: float = 120.0
    """How long one answer may take; then it is asked for again."""

    def check(self) -> None:
        """Raises SettingsError for what no type says."""
        if not self.tasks:
            raise SettingsError("rollouts.tasks: name the folders with the tasks")
        if not self.engines:
            raise SettingsError("rollouts.engines: name an engine")
        for name, url in self.engines.items():
            if not url.startswith(("http://", "https://")):
                raise SettingsError(f"rollouts.engines.{name}: must begin with http:// or https://")
        for key, low, high in (
            ("share", 1e-6, 1.0),
            ("max_num_seqs", 1, 1_000_000),
            ("group_size", 2, 128),
            ("temperature", 0.01, 2.0),
            ("poll_s", 0.01, 60.0),
            ("answer_s", 1.0, 86_400.0),
        ):
            if not low <= getattr(self, key) <= high:
                raise SettingsError(f"rollouts.{key}: must be between {low:g} and {high:g}")
        if self.token_ms is not None and not 0 < self.token_ms < float("inf"):
            raise SettingsError("rollouts.token_ms: must be above 0")
        try:
            ids.session_of(f"{self.tenant}:x")
        except InvalidRecord:
            raise SettingsError("rollouts.tenant: 1-32 of [a-z0-9-]") from None
