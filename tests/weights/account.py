"""What goes into one published version of the tiny model: manifest, stream, steps, receipts."""

from __future__ import annotations

from tailrace.events import Coordinates, ModelUpdate, Range, Receipt, Step
from tailrace.weights import codec
from tailrace.weights.tensors import Tensors, digest
from tests.weights.models import trained

RECEIPTS = 30


def of_version(
    version: int, base: ModelUpdate, held: Tensors
) -> tuple[ModelUpdate, bytes, list[Step], list[tuple[str, Receipt]]]:
    """The arguments of publish(): one step over ``RECEIPTS`` trajectories."""
    new = trained(held, version)
    start = base.ranges[0].end if base.ranges else 0
    receipts = [
        (
            f"default:s{offset}",
            Receipt(
                source=Coordinates(topic="trajectories", partition=0, offset=offset),
                subject_id=f"00000000-0000-0000-0000-{offset:012}",
                event_time_ms=1,
                stage="trainer",
                outcome="trained",
                version=version,
            ),
        )
        for offset in range(start, start + RECEIPTS)
    ]
    manifest = ModelUpdate(
        model="tiny",
        version=version,
        created_ms=1,
        base_version=base.version,
        base_digest=base.digest,
        digest=digest(new),
        ranges=[Range(partition=0, start=start, end=start + RECEIPTS)],
        first_step=version,
        last_step=version,
    )
    steps = [Step(model="tiny", step=version, version=version, event_time_ms=1)]
    return manifest, codec.encode_delta(held, new), steps, receipts
