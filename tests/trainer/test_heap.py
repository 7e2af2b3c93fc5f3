"""What was freed is taken again without a fault for each page."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from services.trainer import heap

SCRIPT = """
import resource, sys

from services.trainer import heap
if sys.argv[1] == "keep":
    assert heap.keep()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"ab" * (32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_that_was_freed_is_not_taken_from_the_system_again() -> None:
    kept, anew = faults("keep"), faults("not")
    assert kept < 100 < anew


def test_a_c_library_that_cannot_is_said_to_be_slower(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not heap.keep()
    assert [record.message for record in caplog.records] == [
        "this C library cannot keep what a step frees: steps are slower"
    ]
