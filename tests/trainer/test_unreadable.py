"""A version that nobody can make any more: training goes on from the nearest that can be made, and
what the lost ones had decided is decided again."""

from __future__ import annotations

import logging
from pathlib import Path
import shutil

import msgspec
import pytest
import torch
import transformers

from services.trainer import metrics
from tailrace import topics
from tailrace.errors import SettingsError, UpdateRefused
from tailrace.stream import Writer
from tailrace.updates import ModelUpdates
from tailrace.weights.lineage import label_only
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer.conftest import Mill
from tests.trainer.lives import followed, run, trained
from tests.trainer.traffic import MODEL, sampled, spoil, trajectory


def lost(mill: Mill, *, versions: int, spoiled: int) -> None:
    """So many versions; the bytes of one are others now, and no checkpoint leads past it."""
    mill.lose(trained(mill, versions))
    spoil(mill.log, mill.versions()[spoiled])  # type: ignore[arg-type]


def test_it_goes_on_from_the_nearest_ancestor_and_says_so(
    mill: Mill, caplog: pytest.LogCaptureFixture
) -> None:
    lost(mill, versions=4, spoiled=3)
    counted = metrics.UNREADABLE._value.get()
    with caplog.at_level(logging.ERROR):
        trainer = mill.trainer(replay_steps=0)
    assert trainer.recovery.unreadable == (3, 4)
    assert "more than replay_steps" in (trainer.recovery.reseeded or "")
    assert metrics.UNREADABLE._value.get() == counted + 2
    said = [record.getMessage() for record in caplog.records]
    assert any("unreadable version=4: corrupt: version 3: sha256" in text for text in said), said
    before = mill.versions()[2]
    assert trainer.head == before and digest(trainer._policy.published()) == before.digest
    assert not trainer.withdrawn

    run(trainer)
    branch = mill.versions()[5:]
    assert [(u.version, u.base_version, u.kind) for u in branch] == [
        (5, 2, "keyframe"),
        (6, 5, "delta"),
    ]
    steps = [step for step in mill.steps() if step.version > 4]
    assert [step.reseeded for step in steps] == [True, False]
    assert [step.figures.get("unreadable_versions") for step in steps] == [2.0, None]
    again = {i.trajectory_id for step in steps for i in step.inputs}
    assert again == {i.trajectory_id for s in mill.steps() if s.version in (3, 4) for i in s.inputs}
    report = mill.audit()
    assert report.ok, report.problems
    assert (report.head, report.trajectories.outcomes) == (6, {"trained": 32})
    assert mill.audit(head=4).ok, "the history that was left adds up as well"
    with ModelUpdates(mill.log, MODEL) as updates:
        assert digest(updates.at(6).tensors) == digest(trainer._policy.published())


def test_it_is_the_same_however_often_it_is_started_before_and_after_the_branch_begins(
    mill: Mill,
) -> None:
    lost(mill, versions=3, spoiled=2)
    for _ in range(2):
        trainer = mill.trainer(replay_steps=0)
        assert (trainer.head.version, trainer.recovery.unreadable) == (1, (2, 3))
        mill.lose(trainer)
    trainer = mill.trainer(replay_steps=0)
    trainer.turn(0.0)
    assert trainer.head.version == 4
    mill.lose(trainer)
    trainer = mill.trainer(replay_steps=0)
    assert trainer.recovery.unreadable == () and trainer.head.version >= 4
    # Answers of what was left are as old as the way back to the chain is long.
    mill.put(*(sampled(n, 3) for n in range(30, 38)))
    run(trainer)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 32}


def test_with_nothing_to_train_it_publishes_a_keyframe_at_once(mill: Mill) -> None:
    lost(mill, versions=2, spoiled=2)
    mill.order("freeze")
    trainer = mill.trainer(replay_steps=0)
    assert not trainer.turn(0.0)
    head = trainer.head
    assert (head.version, head.base_version, head.kind) == (3, 1, "keyframe") and label_only(head)
    assert mill.audit().trajectories.in_flight == 8
    trainer.stop()
    mill.forget(trainer)
    trainer.close()
    mill.order("thaw")
    run(mill.trainer())
    assert [s.figures.get("unreadable_versions") for s in mill.steps()[2:]] == [1.0]
    run(mill.trainer())
    assert mill.audit().ok


def test_where_the_ledger_leads_further_than_the_bytes_nothing_is_reseeded(
    mill: Mill, tmp_path: Path
) -> None:
    mill.lose(trained(mill, 2))
    mill.put(*(trajectory(n) for n in range(16, 24)))
    trainer = mill.trainer(threads=2)
    run(trainer)
    mill.lose(trainer)
    spoil(mill.log, mill.versions()[1])  # type: ignore[arg-type]
    trainer = mill.trainer(state_dir=tmp_path / "empty")
    assert (trainer.head.version, trainer.recovery.unreadable) == (2, (3,))
    assert (trainer.recovery.reseeded, trainer.recovery.replayed) == (None, 2)
    assert digest(trainer._policy.published()) == mill.versions()[2].digest
    run(trainer)
    assert mill.steps()[-1].figures["unreadable_versions"] == 1.0
    report = mill.audit()
    assert report.ok and report.trajectories.outcomes == {"trained": 24}, report


def test_a_checkpoint_is_gone_on_from_where_the_bytes_do_not_lead(mill: Mill) -> None:
    trainer = trained(mill, 1)
    trainer.stop()
    mill.put(*(trajectory(n) for n in range(8, 24)))
    run(trainer)
    mill.lose(trainer)
    spoil(mill.log, mill.versions()[1])  # type: ignore[arg-type]
    trainer = mill.trainer(replay_steps=1)
    assert (trainer.head.version, trainer.recovery.unreadable) == (2, (3,))
    assert trainer.recovery.reseeded is None and trainer.recovery.replayed == 1
    run(trainer)
    assert [s.figures.get("unreadable_versions") for s in mill.steps()][3:] == [1.0]
    with ModelUpdates(mill.log, MODEL) as updates:
        assert updates.at(trainer.head.version).manifest == trainer.head
    assert mill.audit().ok


def test_a_rollback_while_it_stands_for_what_it_cannot_read(mill: Mill) -> None:
    trainer = trained(mill, 4)
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    run(trainer)
    mill.put(*(sampled(n, 5) for n in range(40, 48)))
    run(trainer)
    assert trainer.head.version == 6
    mill.lose(trainer)
    spoil(mill.log, mill.versions()[6])  # type: ignore[arg-type]
    trainer = mill.trainer(replay_steps=0)
    assert trainer.head.version == 5 and not trainer.withdrawn, "the release has only the newest"
    mill.roll_back(0)
    trainer = followed(mill, trainer)
    run(trainer)
    assert trainer.head.base_version == 0
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"filtered": 40}


def test_what_a_release_names_is_not_left_but_by_another_release(mill: Mill) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(2)
    mill.lose(trainer)
    spoil(mill.log, mill.versions()[2])  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="corrupt"):
        mill.trainer(replay_steps=0)
    mill.roll_back(1, "retrain")
    trainer = mill.trainer(replay_steps=0)
    run(trainer)
    assert trainer.head.version > 3 and mill.audit().ok


def test_of_a_chain_that_begins_anew_nothing_older_is_gone_on_from(mill: Mill) -> None:
    mill.lose(trained(mill, 1))
    foreign = msgspec.structs.replace(
        mill.versions()[0], version=2, base_version=1, base_digest="0" * 64, digest="1" * 64
    )
    producer = mill.log.producer()
    Writer(producer, Wire()).write(topics.MODEL_UPDATES, foreign).result(10)
    producer.close()
    with pytest.raises(UpdateRefused, match="version 2"):
        mill.trainer()


def test_a_store_that_is_away_is_waited_for(mill: Mill, tmp_path: Path) -> None:
    store = tmp_path / "store"
    changes = {"keyframe_store": f"file://{store}", "keyframe_versions": 2}
    mill.put(*(trajectory(n) for n in range(24)))
    trainer = mill.trainer(**changes)
    run(trainer)
    mill.lose(trainer)
    store.rename(tmp_path / "away")
    with pytest.raises(UpdateRefused, match="uri"):
        mill.trainer(replay_steps=0, **changes)
    (tmp_path / "away").rename(store)
    trainer = mill.trainer(replay_steps=0, **changes)
    assert (trainer.head.version, trainer.recovery.unreadable) == (3, ())


def test_versions_of_another_model_are_a_wrong_folder(
    mill: Mill, tmp_path: Path, tiny_model: Path
) -> None:
    mill.lose(trained(mill, 1))
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    config = transformers.AutoConfig.from_pretrained(tiny_model)
    config.num_hidden_layers = 1
    made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    made.save_pretrained(other)
    with pytest.raises(SettingsError, match=r"trainer\.model_dir: weights do not fit the model"):
        mill.trainer(model_dir=other)
