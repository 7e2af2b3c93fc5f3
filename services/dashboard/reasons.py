"""``/api/why``: what :mod:`tailrace.why` says of an id, on a thread, within a time.

A reading cannot be broken off; so many at once are read, and who waits longer than the time-out is
told so while the reading ends by itself. Who had no turn by then is not read for at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import json
import logging
from pathlib import Path
import threading
from typing import Any

import msgspec

from services.dashboard.errors import ApiError
from services.dashboard.masking import masked
from services.dashboard.settings import Settings
from tailrace import ids, why
from tailrace.errors import InvalidRecord, LogError, SettingsError
from tailrace.log.base import Log

_log = logging.getLogger(__name__)
Spell = Callable[[list[int]], list[str]]


def speller(folder: Path) -> Spell:
    """What each token spells alone. Raises SettingsError without a tokenizer there."""
    try:
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception for a missing file
        raise SettingsError(f"dashboard.model_dir: no tokenizer in {folder}: {error}") from None
    return lambda tokens: [tokenizer.decode([t], skip_special_tokens=False) for t in tokens]


def check(subject: str) -> None:
    """Raises ApiError (400) for what is no id of an interaction or feedback, nor a version."""
    if subject.isascii() and subject.isdigit() and len(subject) < 19:
        return
    try:
        whose = ids.subject_of(subject) if "!" in subject else subject
        ids.session_of(whose)
        if "!" in subject or ids.is_interaction(subject):
            return
    except InvalidRecord as error:
        raise ApiError(400, str(error)) from None
    raise ApiError(400, f"{subject!r} is the id of no interaction and no feedback, nor a version")


class Reasons:
    """Reads with ``log``, which others may use too."""

    def __init__(self, settings: Settings, log: Log) -> None:
        """Raises SettingsError for a ``model_dir`` without a tokenizer."""
        self._settings, self._log = settings, log
        self._spell = None if settings.model_dir is None else speller(settings.model_dir)
        self._turns = asyncio.Semaphore(settings.why_at_once)

    async def of(self, subject: str) -> bytes:
        """The answer as JSON. Raises ApiError."""
        check(subject)
        limit_s = self._settings.why_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._turns.acquire()
                # The reading alone goes on without who asked, and keeps its turn until it ends.
                return await asyncio.shield(self._begin(subject))
        except TimeoutError:
            raise ApiError(504, f"{subject} was not read in {limit_s:g} s") from None

    def _begin(self, subject: str) -> asyncio.Future[bytes]:
        """A reading of its own, which gives its turn back."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        done.add_done_callback(lambda d: d.cancelled() or d.exception())

        def tell(found: bytes | None, error: ApiError | None) -> None:
            self._turns.release()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(found or b"")

        def work() -> None:
            found, failed = None, None
            try:
                found = self._gather(subject)
            except ApiError as error:
                failed = error
            except Exception:  # whatever it is, who asked must hear of it
                _log.exception("why failed")
                failed = ApiError(500, "internal error")
            try:
                loop.call_soon_threadsafe(tell, found, failed)
            except RuntimeError:
                pass  # the server has ended

        # Not of a pool: the process must be able to end while somebody reads.
        threading.Thread(target=work, name="why", daemon=True).start()
        return done

    def _gather(self, subject: str) -> bytes:
        try:
            found = why.gather(self._log, self._settings, subject, spell=self._spell)
        except LogError as error:
            raise ApiError(503, str(error)) from None
        except SettingsError:
            _log.exception("why failed")
            raise ApiError(500, "a setting of the dashboard is wrong; its log says which") from None
        except ValueError as error:
            raise ApiError(404, str(error)) from None
        document: Any = msgspec.to_builtins(found)
        if self._settings.mask_content:
            document = masked(document)
        try:
            return msgspec.json.encode(document)
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which no encoding has
            return json.dumps(document).encode()
