"""The newest interactions, to be searched. Pure, and safe between threads.

In: prompts, outputs, feedback, trajectories and the trainer's receipts. Out: :class:`Found`. The
reader writes, requests look: a lock is held for a copy of the list alone.
"""

from __future__ import annotations

from collections import Counter
import json
import threading

import msgspec

from services.dashboard.bounded import Memory
from services.dashboard.settings import Settings
from tailrace.events import Feedback, Output, Prompt, Receipt, Trajectory

_TAGS = 20
_VERSIONS = 20
_PARSED_CHARS = 1 << 20
"""A longer text is shown as it stands."""
_CHARS = 200
"""Of ids, names and tags, which anybody may have made long."""


class Found(msgspec.Struct, kw_only=True):
    """One interaction."""

    interaction_id: str
    session_id: str = ""
    tenant: str | None = None
    user: str | None = None
    time_ms: int
    """When its first record was appended."""
    model: str | None = None
    task: str | None = None
    tags: dict[str, str] = {}
    asked: str = ""
    """The start of the last message; empty where content is masked."""
    answered: str = ""
    """The start of the first answer; empty where content is masked."""
    versions: list[int] = []
    """Weights that sampled any of its answers."""
    reward: float | None = None
    """Of its newest trajectory."""
    feedback: int = 0
    """How often something was said of it."""
    outcome: str | None = None
    """What the trainer made of its newest trajectory."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; None and empty: anything."""

    text: str = ""
    user: str | None = None
    session: str | None = None
    tag: str | None = None
    """``name`` or ``name=value``."""
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 50

    def matches(self, one: Found) -> bool:
        """Whether an interaction is what is looked for."""
        if self.user is not None and one.user != self.user:
            return False
        bare = one.session_id.partition(":")[2]
        if self.session is not None and self.session not in (one.session_id, bare):
            return False
        if self.tag is not None:
            name, mark, value = self.tag.partition("=")
            if name not in one.tags or (mark and one.tags[name] != value):
                return False
        if self.since_ms is not None and one.time_ms < self.since_ms:
            return False
        if self.until_ms is not None and one.time_ms >= self.until_ms:
            return False
        text = self.text.casefold()
        return not text or any(
            text in where.casefold() for where in (one.interaction_id, one.asked, one.answered)
        )


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    found: list[Found]
    """Newest first, by ``time_ms``; of one moment by id, the last first."""
    more: bool
    since_ms: int | None


class Recent:
    """The newest interactions."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self._masked = settings.mask_content
        self._chars = settings.excerpt_chars
        self._lock = threading.Lock()
        self._known: Memory[str, Found] = Memory(
            settings.interactions, drops, "interaction too old to be searched for"
        )
        self._trajectories: Memory[str, str] = Memory(
            settings.interactions, drops, "trajectory too old to be searched for"
        )
        """Interaction by trajectory."""

    def prompt(self, event: Prompt, time_ms: int) -> None:
        """A request."""
        with self._lock:
            one = self._one(event.interaction_id, time_ms)
            one.session_id = event.session_id[:_CHARS]
            one.tenant, one.model, one.task = event.tenant, event.model, event.task
            one.user = event.user and event.user[:_CHARS]
            one.tags = {k[:_CHARS]: v[:_CHARS] for k, v in list(event.tags.items())[:_TAGS]}
            if event.content is not None and not self._masked:
                one.asked = excerpt(event.content.messages, self._chars)

    def output(self, event: Output, time_ms: int) -> None:
        """An answer."""
        with self._lock:
            one = self._one(event.interaction_id, time_ms)
            made = {s.version for s in event.weight_versions if s.version is not None}
            one.versions = sorted(made.union(one.versions))[-_VERSIONS:]
            if event.content is not None and not self._masked and not one.answered:
                one.answered = excerpt(event.content.message, self._chars)

    def feedback(self, event: Feedback, time_ms: int) -> None:
        """Something was said, of one interaction."""
        if event.interaction_id is not None:
            with self._lock:
                self._one(event.interaction_id, time_ms).feedback += 1

    def trajectory(self, event: Trajectory, time_ms: int) -> None:
        """A reward."""
        with self._lock:
            one = self._one(event.interaction_id, time_ms)
            one.reward, one.outcome = event.reward, None
            self._trajectories.put(event.trajectory_id, event.interaction_id)

    def receipt(self, event: Receipt) -> None:
        """What the trainer made of a trajectory."""
        if event.stage != "trainer":
            return
        with self._lock:
            one = self._known.get(self._trajectories.pop(event.subject_id, ""))
            if one is not None:
                one.outcome = event.outcome

    def _one(self, interaction: str, time_ms: int) -> Found:
        one = self._known.get(interaction)
        if one is None:
            session = interaction.partition("~")[0][:_CHARS]
            one = Found(interaction_id=interaction, session_id=session, time_ms=time_ms)
            self._known.put(interaction, one)
        one.time_ms = min(one.time_ms, time_ms)
        return one

    def search(self, query: Query) -> Results:
        """The newest that match. Partitions are read one by one, so what came last need not be."""
        with self._lock:
            known = list(self._known.values())
        known.sort(key=lambda one: (one.time_ms, one.interaction_id), reverse=True)
        found: list[Found] = []
        for one in known:
            if query.matches(one):
                if len(found) == query.limit:
                    return Results(found=found, more=True, since_ms=known[-1].time_ms)
                found.append(one)
        return Results(found=found, more=False, since_ms=known[-1].time_ms if known else None)


def excerpt(text: str | None, chars: int) -> str:
    """The start of what was said last, of OpenAI messages, one message, or a plain text.

    >>> excerpt('[{"role": "user", "content": "How tall is it?"}]', 8)
    'How tall'
    """
    if text is None:
        return ""
    try:
        found = json.loads(text) if len(text) < _PARSED_CHARS else text
    except (ValueError, RecursionError):
        return text[:chars]
    if isinstance(found, list) and found:
        found = found[-1]
    if isinstance(found, dict):
        found = found.get("content")
    # JSON can spell half a surrogate pair, which no encoding has.
    shown = found[:chars] if isinstance(found, str) else text[:chars]
    return shown.encode(errors="replace").decode()
