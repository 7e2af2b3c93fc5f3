"""Settings of the dashboard: ``[dashboard]`` in the file, ``TAILRACE_DASHBOARD_*`` above it."""

from __future__ import annotations

from pathlib import Path

from tailrace.deadline import TICKED_S
from tailrace.settings import Common


class Settings(Common, frozen=True, kw_only=True):
    """See :mod:`tailrace.settings` for the common keys. Every bound is a number here."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8090
    """Port to listen on; /health, /ready and /metrics are there too."""
    exposed: bool = False
    """Whether ``host`` may be another than loopback. There is no log-in: whoever reaches the page
    reads everything that people wrote, where ``mask_content`` is not set."""
    gateway_url: str = ""
    """Where browsers reach the gateway: *Talk* asks it for answers and gives it feedback. It must
    name this page's origin in ``gateway.cors_origins``. Empty: no *Talk*."""
    hosts: tuple[str, ...] = ()
    """Names under which browsers may reach this page besides loopback's (behind a proxy, say); a
    request for another is refused, so that no other site can point its own name here. With
    ``exposed`` and none named, any will do."""
    model_dir: Path | None = None
    """Folder with the model's tokenizer.json: *Why* then shows tokens as text. None: as numbers."""
    mask_content: bool = False
    """Whether what people wrote and were answered is left out everywhere: messages, comments,
    categories, tokens, sampling parameters that are texts (stop words, schemas). Ids, pseudonyms,
    numbers and tags stay."""
    history_s: float = 3600.0
    """How far back the session topics are read at the start."""
    history_records: int = 200_000
    """Records of one topic that are read back at most; where there are more, all topics are read
    from a later time."""
    refresh_s: float = 0.5
    """How often the picture is made."""
    lag_s: float = 5.0
    """How often the consumers' places are asked for."""
    satisfied_above: float = 0.0
    """An answer satisfied whose reward is above this."""
    window_s: float = 10.0
    """Length of a stretch of the satisfied share over time."""
    windows: int = 360
    """Stretches that are kept."""
    newest_answers: int = 200
    """Answers of the satisfied share of now."""
    versions_shown: int = 100
    """Newest versions in the timeline, and in the satisfied share by version."""
    versions_known: int = 20_000
    """Manifests that are remembered to follow who descends from whom."""
    steps_shown: int = 300
    """Newest optimizer steps in the curves."""
    alarms_shown: int = 100
    """Newest alarms in the list."""
    decide_within_s: float = TICKED_S
    """How long feedback may wait for its receipt by the clock of rewards, and an answer for its
    trajectory, before the conservation table calls the one missing and the other given up. More
    than the reward spec's longest ``wait_s`` and its ``orphan_s`` together; as of ``tailrace audit
    --decide-within``."""
    remembered: int = 50_000
    """Feedback, trajectories and decided records that are remembered, of each kind, to join what is
    said of them later."""
    in_flight_limit: int = 200_000
    """Undecided records that are remembered, of each kind."""
    interactions: int = 10_000
    """Newest interactions that can be searched for."""
    excerpt_chars: int = 300
    """Characters of a question and of an answer that are searched in and shown."""
    tail_records: int = 1000
    """Newest records of each topic that ``/api/tail`` has."""
    tail_bytes: int = 4 * 1024 * 1024
    """Bytes of them, of each topic."""
    tail_record_bytes: int = 256 * 1024
    """A longer record is shown cut."""
    viewers_limit: int = 500
    """Open streams; beyond it 503."""
    why_timeout_s: float = 20.0
    """How long ``/api/why`` may read."""
    why_at_once: int = 4
    """Readings of ``/api/why`` side by side; others wait for their turn within the time-out."""
