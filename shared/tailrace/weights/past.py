"""What a log holds of a model when its trainer starts: which manifests count.

In: ``model-updates``, committed, each record once. Out: those that count, and the next number; what
the other models have, then and later. What counts is for :mod:`.history` to say. Called by
:mod:`.publisher`, once it has fenced those before it: nothing of its model is added meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import logging
from typing import NamedTuple

import msgspec

from tailrace import topics
from tailrace.errors import InvalidRecord, SettingsError, UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights.history import Written, begins, history, next_version, stranger_after
from tailrace.weights.lineage import MANIFESTS_SKIPPED, Lineage
from tailrace.weights.trust import Trust

_log = logging.getLogger(__name__)

_TYPE = b"tailrace.ModelUpdate"
"""What a publisher writes beside each manifest, and noise has not."""


class _Unreadable(NamedTuple):
    """What calls itself a manifest of the model, and cannot be decoded."""

    offset: int
    signed: bool
    error: InvalidRecord


class Manifests:
    """The manifests of one prefix, for the publisher of one ``model``. ``trust``: None: signatures
    are not looked at."""

    def __init__(
        self, log: Log, decoder: Decoder, *, model: str, prefix: str, trust: Trust | None
    ) -> None:
        self._log, self._decoder, self._trust = log, decoder, trust
        self._model = model
        self._topic = named(topics.MODEL_UPDATES, prefix)
        self._read_to: dict[int, int] = {}
        self._others: dict[str, Lineage] = {}

    def others(self) -> Mapping[str, Lineage]:
        """The other models' versions by now, as far as it matters where their bytes lie. Raises
        LogError; the next call goes on from there."""
        for record in self._read():
            if record.key != self._model.encode():  # its own are its publisher's
                self._decoded(record)
        return self._others

    def past(self, unsigned_to: int | None) -> tuple[list[ModelUpdate], int]:
        """The manifests of the model that count, and the number of its next version. Called once,
        first of all.

        Raises SettingsError where there are versions, none is signed by a known key, and nobody
        said what to make of them, or did before a key began to sign that is not known any more; and
        where the newest of the model's own cannot be read: the rest would be an older history.
        """
        model = self._model
        written: list[Written] = []
        lost: list[_Unreadable] = []
        for record in self._read():
            update = self._decoded(record)
            if isinstance(update, InvalidRecord):
                if record.key == model.encode() and record.headers.get("ce_type") == _TYPE:
                    lost.append(_Unreadable(record.offset, self._signed(record), update))
            elif update is not None:
                written.append(self._judged(record, update))
                if self._trust is None or written[-1].signed:
                    lost = []
        # Strangers are not heard where a key says what is the model's own, or a person does.
        sure = self._trust is not None and (
            unsigned_to is not None or any(begins(each) for each in written)
        )
        lost = [each for each in lost if each.signed or not sure]
        if lost:
            raise SettingsError(
                f"{self._topic}/0/{lost[-1].offset}: a manifest of {model} cannot be read "
                f"({lost[-1].error}), and without it this would go on from an older version; where "
                "it was written with a schema registry, say in registry which"
            )
        if self._trust is None:
            found = [each.update for each in written]
            return found, next_version(written, found)
        found = history(written, unsigned_to)
        if not any(begins(each) for each in written):
            _check(model, written, found, unsigned_to)
        MANIFESTS_SKIPPED.labels("unsigned").inc(len(written) - len(found))
        _log.info("history manifests=%d of=%d", len(found), len(written))
        return found, next_version(written, found)

    def _judged(self, record: LogRecord, update: ModelUpdate) -> Written:
        if self._trust is None:
            return Written(update, False)
        if self._signed(record):
            return Written(update, True)
        return Written(update, False, self._trust.stranger(record.headers))

    def _signed(self, record: LogRecord) -> bool:
        return self._trust is not None and self._trust.signed(record.value, record.headers)

    def _read(self) -> Iterator[LogRecord]:
        """What came since the last time. A record is read once the next one is asked for, so a
        look that breaks off is gone on with."""
        for record in read_all(self._log, self._topic, starts=self._read_to, committed_only=True):
            yield record
            self._read_to[record.partition] = record.offset + 1

    def _decoded(self, record: LogRecord) -> ModelUpdate | InvalidRecord | None:
        """A manifest of the model; None: it is another's, and remembered."""
        try:
            update = self._decoder.decode(record)
        except InvalidRecord as error:
            MANIFESTS_SKIPPED.labels(error.reason).inc()
            where = (record.topic, record.partition, record.offset)
            _log.warning("skipped topic=%s partition=%d offset=%d: %s", *where, error)
            return error
        assert isinstance(update, ModelUpdate)
        if update.model == self._model:
            return update
        slim = msgspec.structs.replace(update, ranges=[], figures={}, canary=None)
        with contextlib.suppress(UpdateRefused):
            self._others.setdefault(update.model, Lineage()).add(slim)
        return None


def _check(
    model: str, written: list[Written], found: list[ModelUpdate], unsigned_to: int | None
) -> None:
    """What a person said of manifests that no known key signed. Raises SettingsError."""
    numbers = [each.update.version for each in written]
    newest = max(numbers, default=-1)
    if unsigned_to is not None and unsigned_to > newest:
        raise SettingsError(
            f"unsigned_to: there is no version {unsigned_to} of {model}: what is published later "
            "is signed; take it out, or name one that is there (-1: none)"
        )
    if not written:
        return
    where = f"of the versions {min(numbers)} to {newest} of {model}"
    if unsigned_to is None or (unsigned_to >= 0 and all(u.kind == "adapter" for u in found)):
        raise SettingsError(
            f"unsigned_to: {where} none is signed by a known key: say up to which one they are "
            "its own (-1: none is), or trust the key that signed them"
        )
    key = stranger_after(written, unsigned_to)
    if key is not None:
        raise SettingsError(
            f"unsigned_to: {where} some after {unsigned_to} are signed, and key {key!r} is not "
            "known: add its public key to trusted_keys; where it was stolen, say in unsigned_to "
            "which of the versions that it signed is the last of this trainer's own"
        )
