"""Trainers one after the other on one log: until there is nothing to do, until they die, until a
release says to go on from elsewhere."""

from __future__ import annotations

import pytest

from services.trainer.trainer import Trainer
from tests.trainer.conftest import Mill
from tests.trainer.traffic import trajectory


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def run_until(mill: Mill, point: str, times: int, **changes: object) -> None:
    """Run a trainer until it comes to a commit point for the nth time, and lose it there."""
    left = times

    def crash(at: str) -> None:
        nonlocal left
        left -= at == point
        if at == point and left == 0:
            raise Killed

    trainer = mill.trainer(crash=crash, **changes)
    with pytest.raises(Killed):
        for _ in range(50):
            trainer.turn(0.0)
    mill.lose(trainer)


def run(trainer: Trainer) -> None:
    """Until there is nothing to do."""
    busy = True
    while busy:
        busy = trainer._skip_ends is not None
        busy |= trainer.turn(0.0)


def trained(mill: Mill, versions: int) -> Trainer:
    """A trainer that has just published so many versions of 8 answers each."""
    mill.put(*(trajectory(n) for n in range(8 * versions)))
    trainer = mill.trainer()
    run(trainer)
    assert trainer.head.version == versions
    return trainer


def followed(mill: Mill, trainer: Trainer, **changes: object) -> Trainer:
    """The next trainer, as ``__main__`` makes it."""
    trainer.turn(0.0)
    assert trainer.withdrawn
    mill.forget(trainer)
    trainer.close()
    return mill.trainer(**changes)
