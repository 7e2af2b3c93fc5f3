"""The records that the trainer writes, from what it did: Steps, receipts, manifests, alarms.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as installed

import torch

from services.trainer.account import Account, Decision
from services.trainer.answer import Answer, input_of
from services.trainer.figures import Figures
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.events import (
    Alarm,
    Canary,
    Command,
    Coordinates,
    ModelUpdate,
    Receipt,
    Step,
)


def step_of(
    settings: Settings,
    answers: Sequence[Answer],
    figures: Figures,
    *,
    number: int,
    version: int,
    reseeded: bool,
    now_ms: int,
    processes: int = 1,
) -> Step:
    """The ledger's entry of one step: all that a replay needs."""
    return Step(
        model=settings.model,
        step=number,
        version=version,
        event_time_ms=now_ms,
        inputs=[input_of(a) for a in answers],
        lr=settings.lr,
        seed=settings.seed + number,
        threads=settings.threads,
        processes=processes,
        code=installed("tailrace"),
        torch=str(torch.__version__),
        reseeded=reseeded,
        figures=figures,
    )


def receipt_of(
    settings: Settings, decision: Decision, *, version: int, now_ms: int
) -> tuple[str, Receipt]:
    """(key, receipt) of one decision."""
    subject = decision.trajectory_id
    source = Coordinates(
        topic=topics.TRAJECTORIES.name, partition=decision.partition, offset=decision.offset
    )
    receipt = Receipt(
        source=source,
        subject_id=subject,
        event_time_ms=now_ms,
        stage="trainer",
        outcome=decision.outcome,
        reason=decision.reason,
        trajectories=[name for name in (subject, decision.successor) if name],
        model=settings.model,
        version=version,
    )
    return decision.key, receipt


def manifest_of(
    head: ModelUpdate,
    version: int,
    account: Account,
    steps: Sequence[Step],
    trained: Sequence[Answer],
    *,
    digest: str,
    config_digest: str | None,
    canary: Canary | None,
    now_ms: int,
) -> ModelUpdate:
    """The manifest of ``version``, whose base is ``head``; the publisher fills in what it makes of
    the bytes."""
    first = [a.first_feedback_ms for a in trained if a.first_feedback_ms is not None]
    last = [a.last_feedback_ms for a in trained if a.last_feedback_ms is not None]
    return ModelUpdate(
        model=head.model,
        version=version,
        created_ms=now_ms,
        base_version=head.version,
        base_digest=head.digest,
        digest=digest,
        config_digest=config_digest,
        ranges=account.ranges,
        first_step=steps[0].step if steps else None,
        last_step=steps[-1].step if steps else None,
        first_feedback_ms=min(first, default=None),
        last_feedback_ms=max(last, default=None),
        figures=steps[-1].figures if steps else {},
        canary=canary,
    )


def frozen_of(command: Command, offset: int, *, now_ms: int) -> Alarm:
    """A freeze holds (``fired``) or a thaw ended it (``cleared``), by the order that lies there on
    ``control``: whoever gave it finds its answer by that."""
    frozen = command.command == "freeze"
    what = "nothing is trained until a thaw" if frozen else "training goes on"
    return Alarm(
        stream="trainer.frozen",
        event_time_ms=now_ms,
        detector="order",
        state="fired" if frozen else "cleared",
        source=Coordinates(topic=topics.CONTROL.name, partition=0, offset=offset),
        message=f"{command.model}: {what} ({command.principal}: {command.reason})",
    )
