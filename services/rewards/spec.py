"""The reward spec: what feedback is worth, and how long to wait for it. Read by join and score.

A TOML file; every key but those of verifiers' kinds has a default::

    wait_s = 3               # wait for feedback this long after an answer
    late = "correct"         # feedback after that: "correct" the trajectory, or "drop"
    orphan_s = 3600          # a prompt, answer or feedback alone is given up after this
    horizon_s = 604_800      # an interaction can be corrected for this long ...
    max_records = 200_000    # ... while it is among the newest so many prompts, outputs and
                             # words of feedback of a partition; older ones are evicted
    default_reward = 0.0     # when nobody says anything; leave out: no reward
    combine = "mean"         # weighted "mean" or "sum" of the terms that have a value
    clip = [-1.0, 1.0]       # leave out: no bounds

    [metrics.thumbs]         # a term made of the feedback of one metric
    weight = 1.0
    aggregate = "last"       # of several: last, mean, min, max or sum
    final = false            # true: nothing more is waited for once it was said
    wait_s = 3               # how long an answer waits for this one; later, it is late
    true = 1.0               # what a boolean is worth
    false = -1.0
    categories = { good = 1.0, bad = 0.0 }
    text = -0.5              # a comment or a demonstration is, by itself; leave out: nothing
    preferred = 1.0          # what a preference is worth to the answer that won ...
    rejected = 0.0           # ... and to the one that lost
    range = [1, 5]           # numbers are mapped from here, clamped,
    to = [-1, 1]             # to there ([0, 1] where left out); no range: they are as they are
    session = "equal"        # feedback about a session is every turn's so far; or the "last" one's;
    discount = 0.9           # or "discounted": times this for each turn that came in between

    [implicit.next_turn]     # a term made of what the user does next: they went on ...
    weight = 0.5
    wait_s = 3
    seen = 1.0
    unseen = 0.0             # leave out: no value

    [implicit.retry]         # ... or asked the same again
    seen = -1.0

    [verifiers.brief]        # a term made of the answer alone, 1.0 for pass and 0.0 for fail
    kind = "length"          # words (or unit = "tokens", "characters") between min and max
    max = 40
    slope = 20               # falls from 1.0 to 0.0 over so many beyond the bounds; 0: at once
    weight = 0.5

Other kinds of verifier: ``finished``; ``regex`` (pattern, as RE2 has it: no look-around);
``json_schema`` (schema, a table); ``exact`` and ``numeric`` (answer_tag: the prompt's tag that
holds the right answer; numeric: tolerance).

The spec's hash is in every trajectory. It covers the meaning, not the text: comments do not change
it.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import math
from pathlib import Path
from typing import Literal

import msgspec

from services.rewards.source import Source
from services.rewards.terms import Implicit, Metric, Verifier
from services.rewards.verifiers import compiled
from tailrace.errors import SettingsError

DAY_S = 24 * 3600.0
MAX_RECORDS = 200_000
"""Prompts, and outputs, and feedback: so many interactions of 300 tokens with a word each take
about 2 GB (9 kB one, measured); at 250 a second in a partition they are those of 13 minutes, which
is longer than the default wait."""
SIGNALS = ("next_turn", "retry")


class Spec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A whole reward spec. Times in seconds of log time."""

    wait_s: float = 600.0
    late: Literal["correct", "drop"] = "correct"
    orphan_s: float = 3600.0
    horizon_s: float = 7 * DAY_S
    max_records: int = MAX_RECORDS
    default_reward: float | None = None
    combine: Literal["mean", "sum"] = "mean"
    clip: tuple[float, float] | None = None
    metrics: dict[str, Metric] = {}
    implicit: dict[str, Implicit] = {}
    verifiers: dict[str, Verifier] = {}

    @property
    def wait_ms(self) -> int:
        """The wait window of what does not say its own."""
        return round(self.wait_s * 1000)

    def wait_ms_of(self, name: str | None) -> int:
        """The wait window of a metric or an implicit term."""
        term = self.metrics.get(name or "") or self.implicit.get(name or "")
        return self.wait_ms if term is None or term.wait_s is None else round(term.wait_s * 1000)

    @property
    def longest_wait_ms(self) -> int:
        """How long an answer waits at most."""
        names = (*self.metrics, *self.implicit)
        return max(map(self.wait_ms_of, names)) if names else self.wait_ms

    @property
    def orphan_ms(self) -> int:
        """The orphan time-out."""
        return round(self.orphan_s * 1000)

    @property
    def horizon_ms(self) -> int:
        """The correction horizon."""
        return round(self.horizon_s * 1000)

    @property
    def slack_ms(self) -> int:
        """Between the lives of facts that need each other: entry, then feedback, then verdict."""
        return min(3_600_000, self.horizon_ms // 10)

    @property
    def lifetime_ms(self) -> int:
        """How long after its turn began an interaction is remembered."""
        return self.horizon_ms + max(self.longest_wait_ms, self.orphan_ms) + self.slack_ms

    def hash(self) -> str:
        """16 hex digits that stand for the spec's meaning."""
        body = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(body).hexdigest()[:16]


def load(file: Path) -> Spec:
    """Read a spec. Raises SettingsError naming the file, the line and the key."""
    try:
        text = file.read_text()
    except OSError as error:
        raise SettingsError(f"rewards.spec: {file}: {error.strerror}") from None
    return parse(text, str(file))


def parse(text: str, name: str = "spec") -> Spec:
    """A spec from its text. Raises SettingsError naming the file, the line and the key."""
    source = Source(text, name)
    metrics = source.tables("metrics", Metric)
    implicit = source.tables("implicit", Implicit)
    verifiers = source.tables("verifiers", Verifier)
    for key in implicit:
        if key not in SIGNALS:
            raise source.error(f"implicit.{key}", f"the signals are {' and '.join(SIGNALS)}")
    for family, terms in (("implicit", implicit), ("verifiers", verifiers)):
        for key in terms:
            if key in metrics or (family == "verifiers" and key in implicit):
                raise source.error(f"{family}.{key}", "another term has that name")
    for key, verifier in verifiers.items():
        _check_verifier(source, f"verifiers.{key}", verifier)
    spec = msgspec.structs.replace(
        source.convert(source.document, Spec, ""),
        metrics=metrics,
        implicit=implicit,
        verifiers=verifiers,
    )
    _check(source, spec)
    return spec


def _check(source: Source, spec: Spec) -> None:
    for key in ("wait_s", "orphan_s"):
        if getattr(spec, key) < 0:
            raise source.error(key, "must not be negative")
    if spec.max_records < 1:
        raise source.error("max_records", "must be at least 1")
    waiting: dict[str, Mapping[str, Metric | Implicit]] = {
        "metrics": spec.metrics,
        "implicit": spec.implicit,
    }
    for family, terms in waiting.items():
        for key, term in terms.items():
            if term.wait_s is not None and not 0 <= term.wait_s <= spec.horizon_s:
                raise source.error(f"{family}.{key}.wait_s", "must be between 0 and horizon_s")
    if spec.horizon_s < max(spec.wait_s, spec.orphan_s):
        raise source.error("horizon_s", "must not be shorter than wait_s and orphan_s")
    if spec.clip is not None and not spec.clip[0] <= spec.clip[1]:
        raise source.error("clip", "the lower bound is above the upper one")
    weights = [
        (f"{f}.{key}.weight", term.weight) for f, t in waiting.items() for key, term in t.items()
    ]
    weights += [(f"verifiers.{key}.weight", term.weight) for key, term in spec.verifiers.items()]
    for key, weight in weights:
        if spec.combine == "mean" and weight <= 0:
            raise source.error(key, 'must be positive where combine = "mean"')
    for key, metric in spec.metrics.items():
        if not 0 <= metric.discount <= 1:
            raise source.error(f"metrics.{key}.discount", "must be between 0 and 1")
        if metric.range is not None and not 0 < metric.range[1] - metric.range[0] < math.inf:
            raise source.error(f"metrics.{key}.range", "the lower bound is not below the upper one")
        if not math.isfinite(metric.to[1] - metric.to[0]):
            raise source.error(f"metrics.{key}.to", "is too wide")


def _check_verifier(source: Source, path: str, verifier: Verifier) -> None:
    if verifier.slope < 0:
        raise source.error(f"{path}.slope", "must not be negative")
    try:
        compiled(verifier)
    except ValueError as error:
        key = "pattern" if verifier.kind == "regex" else "schema"
        raise source.error(f"{path}.{key}", str(error)) from None
