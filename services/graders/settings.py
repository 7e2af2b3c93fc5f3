"""Settings of the graders: ``[graders]`` in the file, ``TAILRACE_GRADERS_*`` above it."""

from __future__ import annotations

from pathlib import Path

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """What one process of graders wants to know."""

    spec: Path | None = None
    """The graders, see :mod:`services.graders.spec`. Must be given."""
    keys: dict[str, str] = {}
    """API keys of judges by the name that the spec calls them by."""
    share: str = "0/1"
    """``i/n``: this process takes the partitions whose number leaves i when divided by n."""
    commit_s: float = 1.0
    """How often offsets are committed: what a killed process grades again, from its cache."""
    cache_rows: int = 1_000_000
    """Grades kept on disk per grader; those not used for longest go first."""
