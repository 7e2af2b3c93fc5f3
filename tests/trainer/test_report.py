"""What a trainer says of its steps: figures in the ledger and on /metrics, alarms that clear."""

from __future__ import annotations

from pathlib import Path
import re
from typing import get_args

from prometheus_client import REGISTRY

from services.trainer.objectives.names import Objective
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.log.memory import MemoryLog
from tests.trainer.conftest import Clock, Mill
from tests.trainer.traffic import sampled, trajectory

PAGE = (Path(__file__).parents[2] / "docs/training.md").read_text()


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tailrace_trainer_{name}", labels) or 0.0


def test_a_step_s_figures_are_in_its_record_and_on_metrics(mill: Mill) -> None:
    trainer = mill.trainer(peak_tflops=1.0)
    before = sample("answers_total", objective="cispo")
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn()
    mill.clock.now_s += 30.0
    mill.put(*(sampled(n, version=n % 2) for n in range(8, 16)))
    assert trainer.turn()
    first, second = mill.steps()
    assert {i.objective for s in (first, second) for i in s.inputs} == {"cispo"}
    assert sample("answers_total", objective="cispo") == before + 16
    for name in ("ess", "mismatch_kl", "clip_fraction_positive", "clip_fraction_negative"):
        assert 0.0 <= first.figures[name]
    assert second.figures["objective_cispo"] == second.figures["effective"] == 8.0
    assert [second.figures[name] for name in ("lag_0", "lag_1", "lag_max")] == [4.0, 4.0, 1.0]
    assert 0.0 < second.figures["mfu"] < 1.0 and second.figures["tokens_per_s"] > 0.0
    # The clock stood still while data was read, and was put forward while nothing was.
    assert second.figures["idle_share"] == 0.0
    for name, value in second.figures.items():
        assert sample("figure_value", figure=name) == value
    assert mill.versions()[-1].figures == second.figures
    for name in second.figures:  # the page has the families by their placeholder
        family = re.sub("^(objective|lag)_(?!mean|max).*", r"\1_", name)
        assert re.search(f"`{family}|`_{name.rpartition('_')[2]}`", PAGE), name


def test_equal_rewards_are_counted_published_and_alarmed_until_they_differ(mill: Mill) -> None:
    trainer = mill.trainer(alarm_steps=2)
    before = sample("no_signal_total")
    for start in (0, 8):
        mill.put(*(trajectory(n, reward=0.5) for n in range(start, start + 8)))
        assert trainer.turn()
    assert [s.figures["no_signal"] for s in mill.steps()] == [1.0, 1.0]
    assert sample("no_signal_total") == before + 2
    base, *later = mill.versions()
    assert [v.digest for v in later] == [base.digest] * 2 and mill.audit().ok
    for start in (16, 24):
        mill.put(*(trajectory(n) for n in range(start, start + 8)))
        assert trainer.turn()
    alarms = [a for a in mill.read(topics.ALARMS) if a.stream == "trainer.no_signal"]
    assert [(a.state, a.value) for a in alarms] == [("fired", 0.0), ("cleared", 8.0)]
    assert mill.versions()[-1].digest != base.digest
    # A restart takes the same steps again, those without a signal too.
    mill.forget(trainer)
    trainer.close()
    again = mill.trainer()
    assert again.recovery.replayed == 4 and again.recovery.reseeded is None


def test_the_page_names_every_objective_and_only_settings_that_there_are() -> None:
    for name in get_args(Objective):
        assert f"`{name}`" in PAGE
    rows = re.findall(r"^\| `.*\|.*\|(.*)\|$", PAGE.partition("The ratio is")[0], re.MULTILINE)
    bounds = {bound for row in rows for bound in re.findall(r"`(\w+)`", row)}
    assert len(bounds) > 10 and bounds <= set(Settings.__struct_fields__)


def test_an_anchored_trainer_goes_on_from_its_checkpoint_to_the_same_bits(
    tiny_model: Path, tmp_path: Path
) -> None:
    """It is version 0 that it is anchored to, not the version that it began with."""
    digests = []
    for kills in (False, True):
        clock = Clock()
        log = MemoryLog(clock.wall_ms)
        mill = Mill(log, tiny_model, tmp_path / f"{kills}", clock=clock)
        terms = {"kl_coefficient": 3.0, "normalisation": "sequence", "checkpoint_versions": 2}
        trainer = mill.trainer(**terms)
        for start in range(0, 32, 8):
            mill.put(*(trajectory(n) for n in range(start, start + 8)))
            assert trainer.turn()
            if kills and start == 16:  # a checkpoint of version 2, and a step after it
                trainer._checkpoints.wait()
                mill.lose(trainer)
                trainer = mill.trainer(**terms)
                assert trainer.recovery.replayed == 1 and trainer.recovery.reseeded is None
        assert mill.steps()[-1].figures["kl_base"] > 0.0
        digests.append(mill.versions()[-1].digest)
        mill.close()
    assert digests[0] == digests[1]
