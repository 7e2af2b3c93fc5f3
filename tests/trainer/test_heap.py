"""What was freed is taken again without a fault for each page."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys

from services.trainer import heap
if sys.argv[1] == "keep" and not heap.keep():
    raise SystemExit(3)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"ab" * (32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_that_was_freed_is_not_taken_from_the_system_again() -> None:
    kept, anew = faults("keep"), faults("not")
    assert kept < 100 < anew
