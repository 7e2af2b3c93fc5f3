"""The account adds up over rollbacks, trainers that die at any point, and versions that are
lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
import shutil
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from services.trainer import reader
from services.trainer.trainer import Trainer
from tailrace.errors import UpdateRefused
from tailrace.log.memory import MemoryLog
from tailrace.weights.lineage import Lineage, label_only
from tests.trainer.conftest import Clock, Mill
from tests.trainer.lives import Killed, followed, run, run_until, trained
from tests.trainer.traffic import sampled, spoil


@pytest.fixture
def expected(mill: Mill, tiny_model: Path, tmp_path: Path) -> list[str | None]:
    """The digests of an undisturbed run of :func:`scene`."""
    other = Mill(MemoryLog(mill.clock.wall_ms), tiny_model, tmp_path / "o", clock=mill.clock)
    trainer = trained(other, 3)
    other.roll_back(1)
    other.put(*(sampled(n, 1) for n in range(30, 38)))
    run(followed(other, trainer))
    other.close()
    return [u.digest for u in other.versions()]


@pytest.mark.parametrize("point", ["encoded", "published", "taken", "stepped"])
def test_killed_while_it_forks_it_ends_in_the_same_state(
    mill: Mill, expected: list[str | None], point: str
) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(1)
    mill.put(*(sampled(n, 1) for n in range(30, 38)))
    trainer.turn(0.0)
    mill.forget(trainer)
    trainer.close()
    for times in (1, 1):
        run_until(mill, point, times)
        if mill.versions()[-1].version == 5:
            break
    run(mill.trainer())
    assert [u.digest for u in mill.versions()] == expected
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 16, "filtered": 16}


@pytest.mark.parametrize("parts", [1, 2])
def test_a_skip_of_many_records_is_accounted_for_in_parts_whoever_dies_between(
    mill: Mill, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    mill.lose(trained(mill, 4))
    mill.roll_back(1)
    mill.put(*(sampled(n, 1) for n in range(40, 48)))
    with monkeypatch.context() as few:
        few.setattr(reader, "_POLL_RECORDS", 5)
        few.setattr(reader, "_POLLS", 1)
        run_until(mill, "published", parts, account_records=6)
    trainer = mill.trainer(account_records=6)
    assert trainer.head.version == 4 + parts and trainer._skip_ends is not None
    run(trainer)
    skipped = Counter(r.version for r in mill.receipts() if r.reason == "rolled_back")
    assert skipped.total() == 24 and len(skipped) == parts + 1
    assert all(skipped[5 + n] == 10 for n in range(parts))
    branch = mill.versions()[5:]
    assert [label_only(u) for u in branch] == [True] * (parts + 1) + [False]
    assert [u.base_version for u in branch] == [1, *(u.version for u in branch[:-1])]
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 16, "filtered": 24}
    mill.lose(trainer)
    trainer = mill.trainer()
    assert trainer._skip_ends is None and trainer.recovery.reseeded is None


def test_stopped_before_the_account_of_the_branch_is_whole_it_leaves_nothing(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No version and no checkpoint: what of the backlog was read is decided anew."""
    trainer = trained(mill, 3)
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    with monkeypatch.context() as few:
        few.setattr(reader, "_POLL_RECORDS", 5)
        few.setattr(reader, "_POLLS", 1)
        trainer.turn(0.0)
    assert trainer._skip_ends is not None and trainer._intake.undone
    trainer.stop()
    assert len(mill.versions()) == 4
    mill.forget(trainer)
    trainer.close()
    trainer = mill.trainer()
    run(trainer)
    assert mill.audit().trajectories.outcomes == {"trained": 8, "filtered": 16}
    mill.roll_back(1, "retrain")
    run(followed(mill, trainer))
    report = mill.audit()
    assert report.ok and report.trajectories.outcomes == {"trained": 24}, report


class Round(msgspec.Struct, frozen=True):
    """Some answers, an order, and a trainer that turns until it has nothing to do, or dies."""

    answers: list[int]
    """By how many versions each is behind."""
    order: str | None
    version: int
    dies: str | None
    lost: bool = False
    """Before it the checkpoints were, and the bytes of the newest version."""


rounds = st.builds(
    Round,
    st.lists(st.integers(0, 4), min_size=4, max_size=12),
    st.sampled_from([None, None, "skip", "retrain", "skip", "retrain", "pin"]),
    st.integers(0, 50),
    st.sampled_from([None, None, "taken", "encoded", "published"]),
    st.sampled_from([False, False, True]),
)


@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(history=st.lists(rounds, min_size=5, max_size=7))
def test_any_history_of_rollbacks_kills_and_losses_adds_up(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, history: list[Round]
) -> None:
    """Along the chain of every version each record has one outcome and each answer is trained at
    most once; what is trained on is what the releases leave."""
    clock = Clock()
    state = tmp_path_factory.mktemp("state")
    log = MemoryLog(clock.wall_ms)
    mill = Mill(log, tiny_model, state, clock=clock)
    mill.settings = msgspec.structs.replace(mill.settings, checkpoint_versions=2)

    def next_trainer(**changes: Any) -> Trainer:
        try:
            return mill.trainer(**changes)
        except UpdateRefused:  # a release named it: only another one can leave it
            mill.roll_back(0, "retrain")
            return mill.trainer(**changes)

    trainer, number = mill.trainer(), 0
    for each in [*history, Round(answers=[], order=None, version=0, dies=None)]:
        head = mill.versions()[-1]
        newest = head.version
        if each.lost and head.chunks is not None:
            mill.lose(trainer)
            spoil(log, head)
            shutil.rmtree(mill.settings.own_dir)
            trainer = next_trainer(replay_steps=0)
        for behind in each.answers:
            mill.put(sampled(number, max(0, newest - behind)))
            number += 1
        if each.order in ("skip", "retrain"):
            mill.roll_back(each.version % (newest + 1), each.order)
        elif each.order == "pin":
            mill.release(mode="pin", live=each.version % (newest + 1))

        def crash(at: str, dies: str | None = each.dies) -> None:
            if at == dies:
                raise Killed

        trainer._crash = trainer._press._crash = crash
        for _ in range(8):
            clock.now_s += 70  # what waits is trained, and decided
            try:
                trainer.turn(0.0)
            except Killed:
                mill.lose(trainer)
                trainer = next_trainer()
            if trainer.withdrawn:
                mill.forget(trainer)
                trainer.close()
                trainer = next_trainer(crash=crash)
    lineage = Lineage()
    for update in mill.versions():
        assert lineage.add(update)
    assert trainer.head == lineage.served(trainer._releases.followed)
    for version in lineage.updates:
        report = mill.audit(version)
        assert report.ok, (version, report.problems)
    mill.close()
