"""services.drift.state: old or new, never half; never anybody else's."""

from __future__ import annotations

import os
import pickle
import random

import pytest

from services.drift import state
from services.drift.bank import Bank
from services.drift.merge import Done
from tailrace.events import Coordinates

DONE = {("p.outputs", 0): Done(7, 1000), ("p.feedback", 3): Done(0, 0)}


def quiet(step: int) -> None:
    """Nobody is told."""


def used() -> Bank:
    chance, bank = random.Random(1), Bank()
    for stream in ("reward", "thumbs_down"):
        for _ in range(500):
            bank.observe(stream, chance.random(), 1, Coordinates())
    return bank


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "drift"


def test_without_a_checkpoint_there_is_none(folder):
    assert state.load(folder, Bank().parameters) is None


def test_a_checkpoint_comes_back(folder):
    bank = used()
    state.save(folder, bank, DONE, quiet)
    found = state.load(folder, bank.parameters)
    assert found and found.bank
    assert found.header.places() == DONE
    levels = [w.detector.level for w in bank.watches()]
    assert [w.detector.level for w in found.bank.watches()] == levels
    assert (folder / "checkpoint").stat().st_mode & 0o077 == 0


def test_the_steps_are_told_in_order(folder):
    steps: list[int] = []
    state.save(folder, Bank(), DONE, steps.append)
    assert steps == [3, 4, 5]


@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_failure_leaves_the_old_or_the_new(folder, at):
    def fail(step: int) -> None:
        if step == at:
            raise OSError("the disk is full")

    state.save(folder, Bank(), DONE, quiet)
    newer = {("p.outputs", 0): Done(9, 2000)}
    with pytest.raises(OSError, match="full"):
        state.save(folder, used(), newer, fail)
    found = state.load(folder, Bank().parameters)
    assert found and found.bank
    assert found.header.places() == (DONE if at == 3 else newer)
    state.save(folder, used(), newer, quiet)


@pytest.mark.parametrize("cut", [0, 1, 64, 65, 100, -1])
def test_a_torn_checkpoint_is_none(folder, cut):
    state.save(folder, used(), DONE, quiet)
    file = folder / "checkpoint"
    file.write_bytes(file.read_bytes()[:cut])
    assert state.load(folder, Bank().parameters) is None


def test_a_flipped_bit_is_none(folder):
    state.save(folder, used(), DONE, quiet)
    file = folder / "checkpoint"
    good = file.read_bytes()
    for at in range(0, len(good), 97):
        if at == 64:
            continue
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert state.load(folder, Bank().parameters) is None


@pytest.mark.parametrize("what", ["river.__version__", "platform.python_version"])
def test_another_version_keeps_only_the_offsets(folder, monkeypatch, what):
    bank = used()
    state.save(folder, bank, DONE, quiet)
    monkeypatch.setattr(what, "9.9.9" if what.endswith("__") else lambda: "9.9.9")
    found = state.load(folder, bank.parameters)
    assert found and found.bank is None
    assert found.header.places() == DONE


def test_other_parameters_keep_only_the_offsets(folder):
    state.save(folder, used(), DONE, quiet)
    found = state.load(folder, Bank(quiet_values=5).parameters)
    assert found and found.bank is None


def test_a_planted_pickle_runs_nothing(folder, monkeypatch):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "trapped"),)

    trap = pickle.dumps(Trap())
    monkeypatch.setattr(state.pickle, "dumps", lambda *_, **__: trap)
    state.save(folder, Bank(), DONE, quiet)
    found = state.load(folder, Bank().parameters)
    assert found and found.bank is None
    assert not (folder / "trapped").exists()


@pytest.mark.parametrize("pickled", [b"", b"rubbish", pickle.dumps([1]), pickle.dumps(used())[:-9]])
def test_an_unloadable_bank_keeps_only_the_offsets(folder, monkeypatch, pickled):
    """Its checksum and header are right, so only loading it shows."""
    monkeypatch.setattr(state.pickle, "dumps", lambda *_, **__: pickled)
    state.save(folder, Bank(), DONE, quiet)
    found = state.load(folder, Bank().parameters)
    assert found and found.bank is None
    assert found.header.places() == DONE
