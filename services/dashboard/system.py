"""Sections of the live picture: who runs, what flows, whether it adds up. Structs alone.

Parts of :class:`services.dashboard.picture.Picture`. The text under each field is what the page
shows where one points at the figure. Times are milliseconds since 1970, by the broker's clock
(append time) unless it says otherwise. None: not known yet.
"""

from __future__ import annotations

from services.dashboard.learning import Section


class Engine(Section, kw_only=True):
    """One engine: what it said last, and what it answered in the last minute."""

    engine: str
    """Id of the engine, as it signs its acks."""
    version: int
    """Of what it says. It serves this one where the state is applied or serving."""
    state: str
    """applied, serving, refused, or loaded (topic model-acks)."""
    time_ms: int
    """When it was heard last; it says twice a minute what it serves."""
    stale: bool = False
    """Not heard for a minute: it may be gone."""
    reason: str | None = None
    """Why it refused a version."""
    answers_per_s: float = 0.0
    """Outputs that it made in the last minute, a second."""
    tokens_per_s: float = 0.0
    """Tokens of those, a second."""
    ttft_p50_ms: float | None = None
    """Median time to the first token, of its newest streamed outputs."""
    ttft_p95_ms: float | None = None
    """95 % had their first token in this time."""
    errors: int = 0
    """Outputs with an infrastructure error, as far as the dashboard has read."""


class Engines(Section, kw_only=True):
    """Who serves what."""

    engines: list[Engine] = []
    """By name; those that were heard in the last hour."""


class Line(Section, kw_only=True):
    """One line of the conservation table: in = outcomes + in flight + missing."""

    name: str
    """answers (outputs, until a trajectory holds them), feedback (until rewards' receipt) or
    trajectories (until the trainer's)."""
    records: int = 0
    """What came in since the account began."""
    outcomes: dict[str, int] = {}
    """What became of it, by outcome. Feedback and trajectories: by their receipts, or by the dead
    letter; of trajectories along the chain of the version that training goes on from."""
    in_flight: int = 0
    """Not decided yet: on its way."""
    missing: int = 0
    """Should have been decided: the version that took it is published, or the wait for feedback is
    over, and no receipt came. Never anything but 0 in a healthy system."""
    unaccounted: int = 0
    """records less outcomes, in flight and missing; 0 where the account balances."""
    oldest_ms: int | None = None
    """Append time of the oldest record in flight."""


class Account(Section, kw_only=True):
    """The conservation table: every record has exactly one outcome."""

    since_ms: int | None = None
    """The account begins here: append time of the first record that was read. `tailrace audit`
    recounts all of the log."""
    balanced: bool = True
    """Every line adds up and nothing is missing."""
    lines: list[Line] = []
    """One for each kind of record."""
    repeated: int = 0
    """Receipts that said again what was known; senders repeat themselves after a crash."""
    before: int = 0
    """Receipts of records from before the account began, which are not in it."""
    forgotten: int = 0
    """Records in flight that were too many to remember (setting in_flight_limit). A receipt that
    names no record in flight is taken for one of theirs."""


class Lag(Section, kw_only=True):
    """One consumer of one topic."""

    consumer: str
    """Who reads: a service, or a consumer group."""
    topic: str
    """What it reads."""
    records: int | None = None
    """Records that it has not taken yet: end of the topic less where it stands, all partitions."""
    source: str = ""
    """How that is known: committed offsets of its group, or a record that it wrote; or why it is
    not."""


class Lags(Section, kw_only=True):
    """How far behind everybody is."""

    consumers: list[Lag] = []
    """By consumer and topic."""
    time_ms: int | None = None
    """When they were asked for, by the dashboard's clock."""


class Alarm(Section, kw_only=True):
    """A detector that fired or cleared (topic alarms)."""

    stream: str
    """What it watches: reward, answer_length, behaviour_logprob, thumbs_down (of drift), or a
    figure of the trainer."""
    detector: str | None = None
    """Which detector."""
    state: str
    """fired or cleared."""
    time_ms: int
    """When it was appended."""
    value: float | None = None
    """What it saw."""
    baseline: float | None = None
    """What it had expected."""
    message: str | None = None
    """In words."""


class Alarms(Section, kw_only=True):
    """What detectors say."""

    open: list[Alarm] = []
    """Fired and not cleared since, newest first."""
    recent: list[Alarm] = []
    """The newest, fired and cleared, newest first."""
    fired: int = 0
    """How often one fired, as far as the dashboard has read."""


class Process(Section, kw_only=True):
    """One writer, by its last record. The dashboard asks no process: it reads the log alone."""

    name: str
    """What its records name as their source (header ce_source)."""
    time_ms: int
    """Append time of its last record."""
    topic: str
    """Where that lies."""
    records: int = 0
    """Records of it that the dashboard has read."""
    silent: bool = False
    """Nothing for longer than it was ever silent before, and for a minute at least. A process that
    has nothing to say is silent too."""


class Processes(Section, kw_only=True):
    """Who writes, and when last."""

    writers: list[Process] = []
    """By name."""


class TopicFlow(Section, kw_only=True):
    """One topic."""

    topic: str
    """Its name, without the prefix."""
    records: int = 0
    """Records that the dashboard has read."""
    per_s: float = 0.0
    """Of the last ten seconds, a second."""
    unreadable: int = 0
    """Records that could not be decoded: foreign bytes, or a schema that nobody published; and,
    with the setting trusted_keys, manifests that none of them signed."""
    time_ms: int | None = None
    """Append time of the newest."""
    missing: bool = False
    """The topic does not exist."""


class Drop(Section, kw_only=True):
    """Something that the dashboard let go."""

    reason: str
    """What and why."""
    count: int
    """How often."""


class Traffic(Section, kw_only=True):
    """What flows, and the dashboard itself."""

    topics: list[TopicFlow] = []
    """By the order of the way: prompts to dead-letters."""
    newest_ms: int | None = None
    """Append time of the newest record in this picture."""
    now_ms: int = 0
    """When this picture was made, by the dashboard's clock."""
    caught_up: bool = False
    """Everything that was on the log when the dashboard started has been read."""
    behind: int = 0
    """Records on the log that the dashboard has not read."""
    broker: str | None = None
    """None: it answers. Else what is wrong, while the picture stands still."""
    drops: list[Drop] = []
    """What was let go because a bound was reached. By reason."""
    viewers: int = 0
    """Open pages."""
    skipped: int = 0
    """Pictures that a slow viewer did not get because a newer one was there."""
