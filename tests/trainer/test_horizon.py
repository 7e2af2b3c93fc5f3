"""What was decided stays decided, whoever died since and however it is remembered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
import shutil
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from services.trainer.known import Known, KnownIds, State
from services.trainer.trainer import Trainer
from tailrace import ids
from tailrace.events import Trajectory
from tailrace.log.memory import MemoryLog
from tests.trainer.conftest import Clock, Mill
from tests.trainer.lives import Killed
from tests.trainer.traffic import trajectory

HORIZON_S = 3000.0


class Round(msgspec.Struct, frozen=True):
    """Records, a while, and a trainer that turns until it has nothing to do, or dies."""

    records: list[tuple[str, int]]
    """What each is, and which earlier one it speaks of."""
    dies: str | None
    """Where; ``idle``: when it has nothing more to do."""
    lost: bool
    """And its checkpoints with it: ids come back from receipts alone."""
    while_s: int


rounds = st.builds(
    Round,
    st.lists(
        st.tuples(st.sampled_from(["new"] * 5 + ["repeat"] * 3 + ["revision"] * 2), st.integers()),
        min_size=3,
        max_size=14,
    ),
    st.sampled_from(["idle", "taken", "stepped", "encoded", "published", None]),
    st.booleans(),
    st.sampled_from([10, 10, 400, 1500, 4000]),
)


class Source:
    """Trajectories that closed a moment ago, repeats and revisions of any before them."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._made = clock, list[Trajectory]()

    def make(self, kind: str, which: int) -> Trajectory:
        number = len(self._made)
        now_ms = self._clock.wall_ms()
        times = {
            f"{name}_log_time_ms": now_ms - 1 - which % 900_000
            for name in ("closed", "first_feedback", "last_feedback")
        }
        if kind == "new" or not self._made:
            made = trajectory(number, **times, **({"reward": None} if which % 7 == 0 else {}))
        elif kind == "repeat":
            return self._made[which % number]
        else:
            before = self._made[which % number]
            made = trajectory(
                number,
                **times,
                interaction_id=before.interaction_id,
                trajectory_id=ids.trajectory(before.interaction_id, 0, [f"r{number}"]),
                revision=before.revision + 1,
                supersedes=before.trajectory_id,
            )
        self._made.append(made)
        return made


def remembered(trainer: Trainer) -> dict[str, tuple[State, float | None]]:
    """The decided ids that a record may still ask for: what became of each, and with which
    reward."""
    known = trainer._intake.known
    found = known.memory.ids.items()
    return {n: (k.state, k.reward) for n, k in found if not known.beyond(k.partition, k.until_ms)}


class Counted(dict[str, Known]):
    """Counts how often all of it is looked through."""

    looked = 0

    def items(self) -> Any:
        self.looked += 1
        return super().items()


def test_ids_are_looked_through_when_the_horizon_has_moved_by_a_hundredth() -> None:
    known = KnownIds(100_000)
    known.memory.ids = ids = Counted()
    for n in range(300):
        known.saw(0, 1_000_000 + 100 * n)
        known.decided(f"t{n}", 0, 1_000_000 + 100 * n, "trained")
        known.prune()
    assert ids.looked == 30 and len(ids) == 300
    known.saw(0, 1_000_000 + 110_000)
    known.prune()
    assert len(ids) == 200 and min(k.until_ms for k in ids.values()) == 1_010_000


@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
@given(history=st.lists(rounds, min_size=5, max_size=8))
def test_no_id_is_decided_twice_within_the_horizon_whoever_dies(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, history: list[Round]
) -> None:
    clock = Clock()
    log = MemoryLog(clock.wall_ms)
    mill = Mill(log, tiny_model, tmp_path_factory.mktemp("state"), clock=clock)
    fields = {"checkpoint_versions": 2, "horizon_s": HORIZON_S, "max_age_versions": 1000}
    mill.settings = msgspec.structs.replace(mill.settings, **fields)
    source = Source(clock)
    trainer = mill.trainer()

    def next_trainer(each: Round) -> Trainer:
        mill.lose(trainer)
        if each.lost:
            shutil.rmtree(mill.settings.own_dir)
        return mill.trainer()

    def dying(each: Round) -> Callable[[str], None]:
        def crash(at: str) -> None:
            if at == each.dies:
                raise Killed

        return crash

    for each in [*history, Round(records=[], dies=None, lost=False, while_s=70)]:
        mill.put(*(source.make(kind, which) for kind, which in each.records))
        trainer._crash = trainer._press._crash = dying(each)
        for _ in range(6):
            try:
                trainer.turn(0.0)
            except Killed:
                trainer = next_trainer(each)
            clock.now_s += 70  # what waits is trained, and decided
        clock.now_s += each.while_s
        if each.dies == "idle" and not trainer._intake.undone:
            knew = remembered(trainer)
            trainer = next_trainer(each)
            knows = remembered(trainer)
            assert {name: knows.get(name) for name in knew} == knew
    mill.drain()
    while trainer.turn(0.0):
        pass
    for update in mill.versions():
        report = mill.audit(update.version)
        assert report.ok, (update.version, report.problems)
    assert not mill.audit().trajectories.in_flight
    outcomes = defaultdict(list)
    for receipt in mill.receipts():
        if (receipt.outcome, receipt.reason) != ("stale", "horizon"):
            outcomes[receipt.subject_id].append(receipt.outcome)
    for name, found in outcomes.items():
        assert len(found) - found.count("duplicate") <= 1, (name, found)
    mill.close()
