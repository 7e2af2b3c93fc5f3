"""Two processes under torchrun train to the weights of one, each reading its own partitions."""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from services.trainer import ranks
from services.trainer.checkpoint import Checkpoints
from services.trainer.learner import Learner
from services.trainer.policy import Policy
from tailrace.weights import folder
from tailrace.weights.tensors import digest
from tests.trainer import mates

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
"""Of how far the weights moved: sums in another order, which AdamW's division by a root makes
larger where a gradient is nearly nothing."""


@pytest.fixture(scope="module")
def both(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    out = tmp_path_factory.mktemp("both")
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.mates", str(tiny_model), str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def alone(tiny_model: Path) -> tuple[Learner, dict[str, Any]]:
    """The same steps in one process, their inputs in the order of the processes."""
    learner = Learner(Policy(tiny_model, compute="float32"), mates.SETTINGS)
    figures: dict[str, float] = {}
    one, other = mates.arrived([0, 2]), mates.arrived([1, 3])
    for step in range(mates.STEPS):
        given = one[step] + other[step]
        figures = learner.step(given, lr=mates.SETTINGS.lr, objective="cispo")
    return learner, figures


def test_two_processes_train_to_the_weights_of_one(
    both: Path, alone: tuple[Learner, dict[str, Any]], tiny_model: Path
) -> None:
    learner, figures = alone
    begun = Policy(tiny_model, compute="float32")
    whole = Learner(Policy(tiny_model, compute="float32"), mates.SETTINGS)
    ranks.load(whole, both / "checkpoint", learner.updates)  # on one process what two wrote
    assert apart(whole.policy, learner.policy, begun) <= TOLERANCE
    assert digest(folder.read(both / "published")) == digest(whole.policy.published())
    told = json.loads((both / "step.json").read_text())
    for name, value in told["figures"].items():
        if not name.endswith(("_s", "mfu")):
            assert value == pytest.approx(figures[name], rel=1e-3, abs=1e-4), name


def test_each_reads_its_own_partitions_and_holds_its_part(both: Path, tiny_model: Path) -> None:
    seen = [json.loads((both / f"seen-{n}.json").read_text()) for n in range(2)]
    assert [one["partitions"] for one in seen] == [[0, 2], [1, 3]]
    assert not {*seen[0]["sessions"]} & {*seen[1]["sessions"]}, "groups are whole"
    assert len(seen[0]["sessions"]) + len(seen[1]["sessions"]) == 24
    size = sum(p.numel() for p in Policy(tiny_model).parameters.values())
    assert sum(one["parts"] for one in seen) == size
    assert max(one["parts"] for one in seen) < 0.6 * size
    assert seen[0]["digest"] == seen[1]["digest"], "both see the whole that is published"


def test_they_go_on_from_their_checkpoint_to_the_same_bits(both: Path) -> None:
    goes_on, again = json.loads((both / "step.json").read_text())["ends"]
    assert goes_on == again


def test_a_trainer_of_two_processes_goes_on_as_one_would(both: Path, tiny_model: Path) -> None:
    """And what they checkpoint one process takes up."""
    found = json.loads((both / "crew.json").read_text())
    assert found["replayed"] == 1 and found["reseeded"] is None
    assert found["same"] and found["audit"]
    settings = mates.crew_settings(tiny_model, both)
    store = Checkpoints(settings.own_dir, kept=2)
    kept = store.newest([tuple(found["end"])])
    store.close()
    assert kept is not None
    one = Learner(Policy(tiny_model, compute="float32"), settings)
    one.load_masters(kept[1])
    assert digest(one.policy.published()) == found["end"][1]
    one.load_moments(kept[1], kept[0].updates)
    assert one.updates == 4


def apart(one: Policy, other: Policy, begun: Policy) -> float:
    """How far two policies are from each other, as a share of how far they came."""
    between = moved = 0.0
    for name, master in other.masters.items():
        between += float((one.masters[name] - master).square().sum())
        moved += float((master - begun.masters[name]).square().sum())
    return (between / moved) ** 0.5
