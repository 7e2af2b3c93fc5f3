"""Whose records a replay takes, by session: all of one or nothing.

``tenant=acme`` and ``session=acme:s1`` are told by the key. ``user``, ``principal``, ``model``,
``task``, ``learn`` and ``tag.NAME`` are of prompts: a session is taken where any prompt of it in
the stretch has that value. ``*`` stands for anything. Several filters must all hold; the same name
again is an alternative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from tailrace import ids
from tailrace.events import Prompt

BY_KEY = ("tenant", "session")
BY_PROMPT = ("user", "principal", "model", "task", "learn")


class Filters:
    """``NAME=VALUE`` words as a question to sessions. Raises ValueError for other words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._wanted: dict[str, list[str]] = {}
        for word in words:
            name, equals, pattern = word.partition("=")
            known = name in (*BY_KEY, *BY_PROMPT) or (name.startswith("tag.") and name != "tag.")
            if not equals or not known:
                names = ", ".join((*BY_KEY, *BY_PROMPT, "tag.NAME"))
                raise ValueError(f"{word!r} is no filter: NAME=VALUE, of {names}")
            self._wanted.setdefault(name, []).append(pattern)
        self._sessions: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._wanted)

    @property
    def by_prompt(self) -> bool:
        """Whether prompts must be :meth:`seen` first."""
        return any(name not in BY_KEY for name in self._wanted)

    def seen(self, prompt: Prompt) -> None:
        """One prompt of the stretch."""
        if all(
            _any(patterns, _said(prompt, name))
            for name, patterns in self._wanted.items()
            if name not in BY_KEY
        ):
            self._sessions.add(prompt.session_id)

    def takes(self, key: bytes | None) -> bool:
        """Whether the records with this key are taken. What has no session for a key is not."""
        if not self._wanted:
            return True
        try:
            session = (key or b"").decode()
            said = {"tenant": ids.tenant_of(session), "session": session}
        except ValueError:
            return False
        if self.by_prompt and session not in self._sessions:
            return False
        return all(_any(self._wanted[name], said[name]) for name in BY_KEY if name in self._wanted)


def _said(prompt: Prompt, name: str) -> str | None:
    if name == "learn":
        return str(prompt.learn is True).lower()
    if name.startswith("tag."):
        tags: Mapping[str, str] = prompt.tags
        return tags.get(name.removeprefix("tag."))
    value: str | None = getattr(prompt, name)
    return value


def _any(patterns: list[str], value: str | None) -> bool:
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)
