"""Figures of weights on the log: sizes and times of deltas, beside other formats, in one run.

    python -m benchmarks.weights [--only SECTION ...] [--repeats 5] [--json]

The last line of the output is one JSON object with a key per section that was run; ``--json`` says
nothing else.

- ``deltas``: two real steps of training of SmolLM2-135M, see :mod:`benchmarks.deltas`
- ``scaling``: random models of 0.1, 0.5 and 1.5 billion weights; takes 10 GiB of memory
- ``serving``: a hundred updates under requests, see :mod:`benchmarks.serving`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
from typing import Any

from benchmarks import deltas, serving
from benchmarks.servers import CACHE_DIR

LRS = [2e-5, 2e-6]
PARAMETERS = [100_000_000, 500_000_000, 1_500_000_000]

SECTIONS: dict[str, Callable[[int], Any]] = {
    "deltas": lambda repeats: deltas.deltas(CACHE_DIR, LRS, repeats),
    "scaling": lambda repeats: deltas.scaling(PARAMETERS, repeats),
    "serving": lambda repeats: serving.measure(),
}
"""What gives a section its value, from the repeats of each measurement."""


def table(rows: list[dict[str, float | str]]) -> str:
    """Rows for people: a line of names, a line for each."""
    lines = ["".join(f"{name:>18}" for name in rows[0])]
    for row in rows:
        lines.append("".join(f"{_cell(value):>18}" for value in row.values()))
    return "\n".join(lines)


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS], default=[*SECTIONS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = {}
    for name in options.only:
        report[name] = SECTIONS[name](options.repeats)
        if not options.json and isinstance(report[name], list):
            print(f"{name}\n{table(report[name])}\n", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
