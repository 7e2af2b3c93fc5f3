"""The compiled loops are there where they can be, and the codec where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys

SETUPS = {
    "without numba": "sys.modules['numba'] = None",
    "cache cannot be written": """
from numba.core import caching
def refuse(self):
    raise OSError(30, "Read-only file system")
caching._CacheLocator.ensure_cache_path = refuse
""",
    "usual": "",
}
PROGRAM = """
import sys
{setup}
from tailrace.weights import codec, kernels
from tests.weights.models import model, same, trained
base = model()
new = trained(base, 1)
stream = codec.encode_delta(base, new)
applied = codec.apply_delta(stream, base, with_undo=True)
assert same(applied.tensors, new)
assert same(codec.apply_delta(applied.undo, new).tensors, base)
print(kernels.compiled() is not None, stream.hex(), applied.undo.hex())
"""


def _run(setup: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(setup=setup)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_streams_are_the_same_with_and_without() -> None:
    compiled, *streams = _run(SETUPS["usual"])
    assert compiled == "True"
    assert _run(SETUPS["without numba"]) == ["False", *streams]
    assert _run(SETUPS["cache cannot be written"]) == ["True", *streams]
