"""A trainer that died is followed by one that ends on the same bits, or says that it could not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.trainer import recovery
from services.trainer.metrics import REPLAYED, RESEEDS
from services.trainer.trainer import Trainer
from tailrace import topics
from tailrace.weights.tensors import digest
from tests.trainer.conftest import Mill
from tests.trainer.lives import Killed, run_until
from tests.trainer.traffic import trajectory


def finish(mill: Mill, **changes: object) -> Trainer:
    trainer = mill.trainer(**changes)
    while trainer.turn(0.0):
        pass
    mill.drain()
    trainer.turn(0.0)
    return trainer


def reseeds(reason: str) -> float:
    return RESEEDS.labels(reason)._value.get()


@pytest.fixture
def expected(mill: Mill, tiny_model: Path, tmp_path: Path) -> dict[int, str | None]:
    """What an undisturbed trainer makes of the same log: the digest after each number of steps."""
    other = Mill(type(mill.log)(mill.clock.wall_ms), tiny_model, tmp_path / "o", clock=mill.clock)
    other.put(*(trajectory(n) for n in range(40)))
    finish(other)
    other.close()
    return {u.last_step: u.digest for u in other.versions() if u.last_step is not None}


@pytest.mark.parametrize("point", ["taken", "stepped", "encoded", "published"])
@pytest.mark.parametrize("times", [1, 3])
def test_killed_at_any_point_it_goes_on_to_the_same_bits(
    mill: Mill, expected: dict[int, str | None], point: str, times: int
) -> None:
    mill.put(*(trajectory(n) for n in range(40)))
    run_until(mill, point, times)
    before = REPLAYED._value.get()
    trainer = finish(mill)
    assert trainer.recovery.reseeded is None
    assert trainer.recovery.replayed == times - (point != "published")
    assert REPLAYED._value.get() - before == trainer.recovery.replayed
    found = {u.last_step: u.digest for u in mill.versions() if u.last_step is not None}
    assert found == expected
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 40}


@pytest.mark.parametrize("point", ["checkpoint_begun", "checkpoint_written", "checkpoint_visible"])
def test_killed_while_a_checkpoint_is_written(
    mill: Mill, expected: dict[int, str | None], point: str
) -> None:
    mill.put(*(trajectory(n) for n in range(40)))

    def crash(at: str) -> None:
        if at == point:
            raise Killed

    trainer = mill.trainer(crash=crash, checkpoint_versions=2)
    with pytest.raises(Killed):
        for _ in range(4):
            trainer.turn(0.0)
            trainer._checkpoints.wait()
    mill.lose(trainer)
    trainer = finish(mill)
    assert trainer.recovery.replayed == (0 if point == "checkpoint_visible" else 2)
    assert trainer.recovery.reseeded is None
    found = {u.last_step: u.digest for u in mill.versions() if u.last_step is not None}
    assert found == expected and mill.audit().ok


def test_a_stopped_trainer_goes_on_from_its_checkpoint(
    mill: Mill, expected: dict[int, str | None]
) -> None:
    mill.put(*(trajectory(n) for n in range(40)))
    trainer = mill.trainer()
    trainer.turn(0.0)
    trainer.turn(0.0)
    trainer.stop()
    trainer.close()
    mill.forget(trainer)
    trainer = finish(mill)
    assert (trainer.recovery.replayed, trainer.recovery.checkpoint_version) == (0, 2)
    found = {u.last_step: u.digest for u in mill.versions() if u.last_step is not None}
    assert found == expected


def test_a_lost_input_reseeds_and_says_so(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(24)))
    run_until(mill, "published", 2)
    lost = mill.steps()[0].inputs[0]
    mill.log.delete_before("trajectories", {lost.partition: lost.offset + 1})
    before = reseeds("inputs")
    trainer = finish(mill)
    assert "gone" in (trainer.recovery.reseeded or "") and reseeds("inputs") == before + 1
    assert [s.reseeded for s in mill.steps()] == [
        False,
        False,
        True,
        *[False] * (len(mill.steps()) - 3),
    ]
    assert [s.step for s in mill.steps()] == list(range(1, len(mill.steps()) + 1))
    assert trainer.recovery.checkpoint_version == 0
    report = mill.audit()
    assert report.ok, report.problems
    # A reseeded step is followed by a checkpoint at once, so that the next restart has a way.
    trainer._checkpoints.wait()
    mill.lose(trainer)
    again = finish(mill)
    assert again.recovery.reseeded is None
    assert again.head.digest == digest(again._policy.published())


def test_other_threads_reseed(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(24)))
    run_until(mill, "published", 2)
    before = reseeds("environment")
    trainer = finish(mill, threads=2)
    assert "threads" in (trainer.recovery.reseeded or "") and reseeds("environment") == before + 1
    assert mill.audit().ok


def test_limits_that_are_closer_now_change_nothing_of_what_was_trained(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(8)))
    trainer = mill.trainer()
    assert trainer.turn(0.0)
    mill.lose(trainer)
    again = mill.trainer(max_tokens=1, max_reward=0.5)
    assert (again.recovery.replayed, again.recovery.reseeded) == (1, None)


def test_the_first_step_alone_of_a_version_says_that_it_is_reseeded(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(32)))
    run_until(mill, "published", 2)
    before = len(mill.steps())
    finish(mill, threads=2, publish_steps=2)
    later = mill.steps()[before:]
    assert later[0].version == later[1].version
    assert [step.reseeded for step in later] == [True, *[False] * (len(later) - 1)]


def test_an_objective_that_is_unknown_here_reseeds(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.put(*(trajectory(n) for n in range(16)))
    run_until(mill, "published", 1)
    monkeypatch.setattr(recovery, "_OBJECTIVES", ("ppo",))
    before = reseeds("objective")
    trainer = finish(mill)
    assert "'cispo', which is unknown" in (trainer.recovery.reseeded or "")
    assert reseeds("objective") == before + 1 and mill.audit().ok


def test_an_adapter_that_is_reseeded_begins_anew_without_the_old_ones_moments(mill: Mill) -> None:
    lora = {"lora_rank": 4, "lora_modules": ("q_proj", "v_proj"), "checkpoint_versions": 1}
    mill.put(*(trajectory(n) for n in range(16)))
    run_until(mill, "published", 2, **lora)
    trainer = finish(mill, **lora)
    assert trainer.recovery.reseeded is None and trainer.recovery.checkpoint_version == 1
    mill.put(*(trajectory(n) for n in range(16, 24)))
    mill.lose(trainer)
    trainer = mill.trainer(**(lora | {"threads": 2}))
    assert "threads" in (trainer.recovery.reseeded or "") and trainer.recovery.optimizer_reset
    assert trainer._learner.updates == 0
    assert digest(trainer._policy.published()) == trainer.head.digest
    assert trainer.turn(0.0)
    assert mill.steps()[-1].figures["optimizer_reset"] == 1.0 and mill.audit().ok


@pytest.mark.parametrize("versions", [1, 200], ids=["late", "stop"])
def test_a_reseed_is_said_however_often_it_is_stopped_before_the_next_step(
    mill: Mill, versions: int
) -> None:
    mill.put(*(trajectory(n) for n in range(8)))
    run_until(mill, "published", 1)
    for number in (90, 91):
        trainer = mill.trainer(threads=2, checkpoint_versions=versions)
        assert "threads" in (trainer.recovery.reseeded or "")
        mill.put(trajectory(number, reward=None))
        trainer.turn(0.0)
        if versions == 1:
            trainer._publish()
        trainer.stop()
        mill.forget(trainer)
        trainer.close()
    mill.put(*(trajectory(n) for n in range(8, 16)))
    finish(mill, threads=2)
    step = mill.steps()[-1]
    assert step.reseeded and step.figures["optimizer_reset"] == 1.0
    assert mill.audit().ok


def test_a_broken_checkpoint_is_passed_over(mill: Mill, expected: dict[int, str | None]) -> None:
    mill.put(*(trajectory(n) for n in range(40)))
    trainer = mill.trainer()
    trainer.turn(0.0)
    trainer.stop()
    trainer.close()
    mill.forget(trainer)
    [folder] = mill.settings.own_dir.glob("v*")
    state = folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\x55")
    trainer = finish(mill)
    assert trainer.recovery.replayed == 1 and trainer.recovery.checkpoint_version == 0
    found = {u.last_step: u.digest for u in mill.versions() if u.last_step is not None}
    assert found == expected


def test_a_checkpoint_that_rounds_to_other_weights_reseeds(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(8)))
    trainer = mill.trainer()
    trainer.turn(0.0)
    with torch.no_grad():
        next(iter(trainer._policy.masters.values())).add_(1.0)
    trainer.stop()
    trainer.close()
    mill.forget(trainer)
    trainer = mill.trainer()
    assert "another digest" in (trainer.recovery.reseeded or "")
    assert digest(trainer._policy.published()) == trainer.head.digest


def test_ids_come_back_so_that_repeats_stay_duplicates(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(8)))
    run_until(mill, "published", 1)
    mill.put(*(trajectory(n) for n in range(8)))
    mill.put(trajectory(50, supersedes=trajectory(3).trajectory_id))
    trainer = finish(mill)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 8, "duplicate": 8, "filtered": 1}
    assert trainer.head.version == 2
    assert len(mill.read(topics.STEPS)) == 1


def test_a_clean_stop_publishes_what_waits_and_keeps_only_that_in_mind(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(8)), trajectory(9, reward=None), trajectory(10))
    trainer = mill.trainer()
    trainer.turn(0.0)
    mill.put(trajectory(11, learn=None))
    trainer.turn(0.0)
    trainer.stop()
    trainer.close()
    mill.forget(trainer)
    assert [u.version for u in mill.versions()] == [0, 1, 2]
    trainer = finish(mill)
    assert trainer.recovery.checkpoint_version == 2
    report = mill.audit()
    assert report.ok and report.trajectories.in_flight == 0
    assert "duplicate" not in report.trajectories.outcomes
