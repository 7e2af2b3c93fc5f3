"""With trusted keys, what a stranger published is not there for ``tailrace why`` and ``/api/why``,
and says nothing of the answers that it names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from services.dashboard.errors import ApiError
from services.dashboard.reasons import Reasons
from services.dashboard.settings import Settings
from tailrace import topics
from tailrace.events import Coordinates, ModelUpdate, Receipt, Step, StepInput
from tailrace.weights import trust
from tailrace.weights.publisher import Publisher
from tailrace.wire import Wire
from tests.cli.river import SESSION, River
from tests.engine.models import MODEL


def sign(river: River, folder: Path, **given: int) -> None:
    """From now on the trainer signs, and only what it signed is trusted."""
    key = folder / "key"
    trust.new_key(key)
    river._publisher.close()
    river._publisher = Publisher(river.log, Wire(), model=MODEL, signing_key=key, **given)
    keys = (folder / "key.pub",)
    river.common = msgspec.structs.replace(river.common, trusted_keys=keys)


def foist(river: River, version: int, base: int) -> None:
    """A stranger's version: its manifest, its step and its receipts, of every trajectory."""
    river.now_ms += 1000
    taken, now_ms = river.trajectories(), river.now_ms
    inputs = [
        StepInput(
            partition=at.partition,
            offset=at.offset,
            trajectory_id=event.trajectory_id,
            objective="reinforce",
            reward=99.0,
        )
        for at, event in taken
    ]
    step = Step(model=MODEL, step=1, version=version, event_time_ms=now_ms, inputs=inputs)
    river.writer.write(topics.STEPS, step)
    for at, event in taken:
        receipt = Receipt(
            source=Coordinates(topic="trajectories", partition=at.partition, offset=at.offset),
            subject_id=event.trajectory_id,
            event_time_ms=now_ms,
            stage="trainer",
            outcome="trained",
            model=MODEL,
            version=version,
        )
        river.writer.write(topics.RECEIPTS, receipt, key=SESSION)
    manifest = ModelUpdate(
        model=MODEL,
        version=version,
        base_version=base,
        base_digest="0" * 64,
        digest="1" * 64,
        kind="keyframe",
        created_ms=now_ms,
        first_step=1,
        last_step=1,
    )
    river.writer.write(topics.MODEL_UPDATES, manifest)


@pytest.fixture
def liked(river: River) -> str:
    """An answer with a reward that nobody has trained yet."""
    river.train(0)
    turn = river.ask("a", "b")
    river.say(turn, "a", True)
    river.settle()
    return turn


@pytest.fixture
def guarded(river: River, tmp_path: Path) -> River:
    sign(river, tmp_path)
    return river


def test_a_strangers_version_is_not_there(guarded: River, liked: str) -> None:
    guarded.train(1, 0)
    foist(guarded, 2, 1)
    said = "no version 2 of tiny, or none that a trusted key signed: the newest is 1"
    with pytest.raises(ValueError, match=said):
        guarded.weights(2)
    assert guarded.weights(1).children == []
    settings = Settings(model=MODEL, trusted_keys=guarded.common.trusted_keys)
    with pytest.raises(ApiError, match=said) as caught:
        asyncio.run(Reasons(settings, guarded.log).of("2"))
    assert caught.value.status == 404


def test_what_it_says_of_an_answer_is_not_told(guarded: River, liked: str) -> None:
    foist(guarded, 7, 0)
    assert guarded.turn(liked).decisions == []
    guarded.train(8, 0)
    foist(guarded, 9, 8)
    found = guarded.turn(liked)
    (decision,) = found.decisions
    assert (decision.fate.version, decision.into and decision.into.version) == (8, 8)
    assert decision.trained is not None and decision.trained.reward == 1.0
    (revision,) = found.revisions
    assert revision.fate is not None and revision.fate.version == 8
    settings = Settings(model=MODEL, trusted_keys=guarded.common.trusted_keys)
    document = msgspec.json.decode(asyncio.run(Reasons(settings, guarded.log).of(liked)))
    assert [one["fate"]["version"] for one in document["decisions"]] == [8]


def test_its_number_does_not_hide_the_steps_of_others(guarded: River, liked: str) -> None:
    foist(guarded, 10_000_000, 0)
    guarded.train(1, 0)
    (decision,) = guarded.turn(liked).decisions
    assert decision.trained is not None and decision.trained.reward == 1.0
    found = guarded.weights(1)
    assert [step.answers for step in found.steps] == [1]
    assert [mover.interaction_id for mover in found.movers] == [liked]


def test_what_the_trainers_first_signed_version_comes_from_is_its_own(
    river: River, liked: str, tmp_path: Path
) -> None:
    """As the audit has it: readers do not serve it, but it was trained on."""
    river.train(1, 0)
    sign(river, tmp_path, unsigned_to=1)
    foist(river, 2, 1)
    river.train(3, 1)
    (decision,) = river.turn(liked).decisions
    assert (decision.fate.version, decision.into) == (1, None)
    assert decision.trained is not None and decision.trained.reward == 1.0


def test_without_trusted_keys_everybody_is_heard(river: River, liked: str) -> None:
    river.train(1, 0)
    foist(river, 2, 1)
    found = river.turn(liked)
    assert [decision.fate.version for decision in found.decisions] == [1, 2]
    assert river.weights(2).row.kind == "keyframe"
