"""Settings of the releases process: ``[releases]`` in the file, ``TAILRACE_RELEASES_*`` above
it."""

from __future__ import annotations

from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """Nothing but what all processes are told. One process serves one ``model``."""
