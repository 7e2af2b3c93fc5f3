"""How long until users are satisfied, beside TRL's GRPOTrainer, in the same run.

    python -m benchmarks.learning [--seeds 0 1 2] [--only PART] [--runs FILE] [--json]

Wall-clock until 0.6 of the last 96 answers are liked (the demo's taste "short"), SmolLM2-135M on
all cores of this machine, a fixed stock of users who vote at once (:mod:`benchmarks.stock`). Ours:
engine and trainer in turn, Kafka between them (:mod:`benchmarks.loop`). TRL: generation and
training in turn as it does by itself (:mod:`benchmarks.peer`). Medians of the seeds; the two sides
take turns, seed by seed. ``--runs`` keeps finished runs in a file, so that it can be done in parts.

The last line of the output is ``{target, tailrace_s, trl_s, ratio, tokens_per_s,
plain_tokens_per_s, stall_share}``; ratio is trl_s / tailrace_s. A side that did not reach the share
has null.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.stock import TARGET

ROOT = Path(__file__).parents[1]
SIDES = {
    "tailrace": ("benchmarks.loop",),
    "trl": ("benchmarks.peer",),
    "throughput": ("benchmarks.throughput", "--json"),
}
"""Command of each; the last has no seed."""


def runs(seeds: Sequence[int], sides: Sequence[str], kept: Path | None) -> list[dict[str, Any]]:
    """Every side's run of every seed: what the file has, then the rest, which it gets."""
    done = []
    if kept is not None and kept.exists():
        done = [json.loads(line) for line in kept.read_text().splitlines()]
    wanted = [(side, seed) for seed in seeds for side in sides if side != "throughput"]
    wanted += [(side, 0) for side in sides if side == "throughput"]
    for side, seed in wanted:
        if any((run["side"], run["seed"]) == (side, seed) for run in done):
            continue
        module, *options = SIDES[side]
        found = last_line(module, *(options or [str(seed)]))
        if found is None:
            continue
        done.append({"side": side, "seed": seed} | found)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with kept.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    return [run for run in done if (run["side"], run["seed"]) in wanted]


def last_line(module: str, *arguments: str) -> dict[str, Any] | None:
    """What a benchmark of its own process says; None where it fails, which standard error tells."""
    child = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines = child.stdout.splitlines()
    if child.returncode != 0 or not lines:
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def median_s(done: Sequence[dict[str, Any]], side: str) -> float | None:
    """Of a side's runs; a run that did not reach the share counts as the longest."""
    times = [run["seconds"] for run in done if run["side"] == side]
    reached = sorted(time for time in times if time is not None)
    if not times or len(reached) * 2 <= len(times):
        return None
    return round(statistics.median(reached + [float("inf")] * (len(times) - len(reached))), 1)


def report(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last line."""
    ours_s, trl_s = median_s(done, "tailrace"), median_s(done, "trl")
    stalls = [run["stall_share"] for run in done if run["side"] == "tailrace"]
    speed = next((run for run in done if run["side"] == "throughput"), {})
    return {
        "target": TARGET,
        "tailrace_s": ours_s,
        "trl_s": trl_s,
        "ratio": None if ours_s is None or trl_s is None else round(trl_s / ours_s, 2),
        "tokens_per_s": speed.get("tokens_per_s"),
        "plain_tokens_per_s": speed.get("plain_tokens_per_s"),
        "stall_share": round(statistics.median(stalls), 3) if stalls else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", choices=[*SIDES], help="one part")
    parser.add_argument("--runs", type=Path, help="file of finished runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sides = [options.only] if options.only else [*SIDES]
    done = runs(options.seeds, sides, options.runs)
    if not options.json:
        for run in done:
            print(json.dumps(run))
    print(json.dumps(report(done)))


if __name__ == "__main__":
    main()
