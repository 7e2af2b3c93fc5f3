"""An interaction from the prompt to the weights.

The id leads to the partition and the time (:mod:`tailrace.turn`), the receipts to the versions and
the steps, these to the engines that have them.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import msgspec

from tailrace import ids, topics, turn
from tailrace.chain import Place
from tailrace.events import Output, Prompt, Receipt, VersionSpan
from tailrace.explain import explanation, fate
from tailrace.log.base import Log, LogRecord
from tailrace.packing import unpack_ids, unpack_logprobs
from tailrace.settings import Common
from tailrace.stream import Decoder
from tailrace.why import ledger
from tailrace.why.ledger import where
from tailrace.why.records import Answer, Asked, Decision, Serving, Token, Turn
from tailrace.why.serving import State, serving, state, strangers

Spell = Callable[[list[int]], list[str]]
"""The text of each token."""
_TRAINED = ("trained", "compensated")
_ROOM = 100
"""Levels that a document may lie below others and still be written."""


def interaction(
    log: Log,
    decoder: Decoder,
    common: Common,
    interaction_id: str,
    *,
    feedback_id: str | None = None,
    also: list[str] | None = None,
    now_ms: int,
    spell: Spell | None = None,
) -> Turn:
    """The chain of an interaction. ``feedback_id``: what was asked about, which must be there.

    Raises ValueError for what is no interaction id or is not on the log, LogError.
    """
    found = turn.read(log, decoder, interaction_id, prefix=common.prefix)
    if feedback_id is not None and feedback_id not in {e.feedback_id for _, e in found.feedback}:
        raise ValueError(
            f"no feedback {feedback_id!r} is on the log, only its interaction (what could not be "
            "read as feedback: tailrace dead-letters list)"
        )
    now = None
    if _decided(found, common.model):
        now = state(log, common, now_ms=now_ms)
        found = _trusted(log, decoder, common, found, now)
    told = explanation(found)
    return Turn(
        interaction_id=interaction_id,
        feedback_id=feedback_id,
        also=also or [],
        asked=None if found.prompt is None else _asked(*found.prompt),
        answers=[_answer(record, event, spell) for record, event in found.outputs.values()],
        feedback=told.feedback,
        revisions=told.revisions,
        decisions=[] if now is None else _decisions(log, decoder, common, found, now),
        expired=found.expired,
    )


def _asked(record: LogRecord, event: Prompt) -> Asked:
    content = event.content
    return Asked(
        where=where(record, topics.PROMPTS),
        session=ids.session_of(event.interaction_id),
        tenant=event.tenant,
        user=event.user,
        model=event.model,
        learn=event.learn,
        channel=None if event.route is None else event.route.channel,
        task=event.task,
        group=event.group_id,
        tags=event.tags,
        sampling=event.sampling,
        messages=None if content is None else document(content.messages),
        tokens=0 if content is None else len(_ids(content.prompt_token_ids)),
    )


def _answer(record: LogRecord, event: Output, spell: Spell | None) -> Answer:
    content = event.content
    made: list[Token] = []
    if content is not None:
        made = tokens(content.token_ids, content.logprobs, event.weight_versions, spell)
    spans = (span.version for span in event.weight_versions)
    return Answer(
        choice=event.choice,
        where=where(record, topics.OUTPUTS),
        engine=event.engine,
        finish_reason=event.finish_reason,
        error=event.error,
        untrainable=event.untrainable,
        ttft_ms=event.ttft_ms,
        total_ms=event.total_ms,
        message=None if content is None else document(content.message),
        versions=list(dict.fromkeys(version for version in spans if version is not None)),
        tokens=made,
    )


def tokens(
    packed_ids: bytes | None,
    packed_logprobs: bytes | None,
    spans: list[VersionSpan],
    spell: Spell | None = None,
) -> list[Token]:
    """Each with its logprob and its version, as far as these reach. Torn bytes give none."""
    numbers = _ids(packed_ids)
    try:
        logprobs = unpack_logprobs(packed_logprobs)
    except ValueError:
        logprobs = []
    versions: list[int | None] = [None] * len(numbers)
    for span in spans:
        for place in range(max(0, span.start), min(span.end, len(numbers))):
            versions[place] = span.version
    texts = spell(numbers) if spell is not None else []
    return [
        Token(
            id=number,
            logprob=logprobs[place] if place < len(logprobs) else None,
            version=versions[place],
            text=texts[place] if place < len(texts) else None,
        )
        for place, number in enumerate(numbers)
    ]


def _ids(packed: bytes | None) -> list[int]:
    try:
        return unpack_ids(packed)
    except ValueError:
        return []


def document(text: str | None) -> Any:
    """A JSON text as what it says; as it is where it is none, or so deep that nobody could write it
    again."""
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text)
        msgspec.json.encode(functools.reduce(lambda inner, _: [inner], range(_ROOM), found))
    except (ValueError, RecursionError):
        return text
    return found


def _decided(found: turn.Records, model: str) -> list[tuple[LogRecord, Receipt]]:
    """What the trainer of a model said of the trajectories."""
    return [
        (record, event)
        for record, event in found.receipts
        if event.stage == "trainer"
        and event.subject_id in found.trajectories
        and event.model in (None, model)
    ]


def _trusted(
    log: Log, decoder: Decoder, common: Common, found: turn.Records, now: State
) -> turn.Records:
    """Without what belongs to a version that no trusted key signed."""
    said = {event.version for _, event in _decided(found, common.model)}
    unknown = {version for version in said if version is not None and version not in now.rows}
    gone = strangers(log, decoder, common, unknown)
    kept = [
        (record, event)
        for record, event in found.receipts
        if event.stage != "trainer"
        or event.model not in (None, common.model)
        or event.version not in gone
    ]
    return found._replace(receipts=kept)


def _decisions(
    log: Log, decoder: Decoder, common: Common, found: turn.Records, now: State
) -> list[Decision]:
    mine = _decided(found, common.model)
    wanted = {
        (event.version, _source(event)): record.time_ms
        for record, event in mine
        if event.outcome in _TRAINED and event.version is not None
    }
    taken = ledger.trained(log, decoder, wanted, common.model, now.rows, prefix=common.prefix)
    return [
        Decision(
            where=where(record, topics.RECEIPTS),
            trajectory_id=event.subject_id,
            fate=fate(event),
            trained=None if event.version is None else taken.get((event.version, _source(event))),
            into=now.rows.get(-1 if event.version is None else event.version),
            serving=_serving(log, decoder, common, now, record, event),
        )
        for record, event in mine
    ]


def _source(event: Receipt) -> Place:
    return event.source.partition, event.source.offset


def _serving(
    log: Log, decoder: Decoder, common: Common, now: State, record: LogRecord, event: Receipt
) -> list[Serving]:
    if event.outcome not in _TRAINED or event.version is None:
        return []
    return serving(log, decoder, common, now, event.version, record.time_ms)
