"""What staleness costs: the reward after equal steps, by objective and by injected lag.

    python -m benchmarks.lag [--objectives NAME ...] [--lags 0 1 4 16 64] [--seeds 3]
        [--runs FILE] [--page DIRECTORY] [--smollm] [--json]

Every answer is sampled from the weights ``lag`` versions behind the newest one
(:mod:`benchmarks.stale`), on a task that a tiny transformer learns from thumbs
(:mod:`benchmarks.kinds`). The arm ``routing`` does what the trainer does by default. The last line
of the output is ``{"lag": [{objective, lag, reward, ci95, trained_share, ...}]}``; ``--json`` says
nothing else. ``--runs`` keeps finished runs in a file, so that a study can be done in parts;
``--page`` writes ``lag.svg`` into a directory. ``--smollm`` adds SmolLM2-135M-Instruct with the
demo's taste, which takes minutes for each run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
import json
import multiprocessing
from pathlib import Path
import statistics

import msgspec

from benchmarks import stale
from benchmarks.chart import Series, lines
from benchmarks.chat import Chat
from benchmarks.kinds import Kinds
from benchmarks.stale import ROUTING, Plan, Run
from tailrace import estimates

OBJECTIVES = [ROUTING, "reinforce", "ppo", "decoupled", "cispo"]
LAGS = [0, 1, 4, 16, 64]
_TASKS: dict[str, type[Kinds] | type[Chat]] = {Kinds.name: Kinds, Chat.name: Chat}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One objective at one lag, over the seeds."""

    task: str
    objective: str
    lag: int
    reward: float
    ci95: float | None
    """Half the interval of the mean reward; null where there is one seed."""
    trained_share: float
    gain: float
    """Reward less that of version 0."""
    kept: float | None
    """Gain, of that at lag 0; null without one."""
    clip_fraction: float
    ess: float
    seeds: int


def plans(options: argparse.Namespace) -> list[Plan]:
    """All runs asked for, a seed after the other, so that what is done of a study can be read."""
    found = [
        Plan(
            task=Kinds.name,
            objective=objective,
            lag=lag,
            seed=seed,
            steps=options.steps,
            answers=64,
            lr=options.lr,
            measured=128,
        )
        for seed in range(options.seeds)
        for objective in options.objectives
        for lag in options.lags
    ]
    if options.smollm:
        found += [
            Plan(
                task=Chat.name,
                objective=ROUTING,
                lag=lag,
                seed=0,
                steps=32,
                answers=24,
                lr=2e-5,
                measured=48,
            )
            for lag in (0, 1, 4)
        ]
    return found


def runs(wanted: Sequence[Plan], kept: Path | None, processes: int) -> Iterator[Run]:
    """Every plan's run: what the file has, then the rest, which it gets."""
    done = _read(kept)
    yield from (done[plan] for plan in wanted if plan in done)
    missing = [plan for plan in wanted if plan not in done]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=processes, mp_context=spawn) as pool:
        tiny = [pool.submit(_run, plan, 1) for plan in missing if plan.task == Kinds.name]
        for future in as_completed(tiny):
            yield _keep(future.result(), kept)
    for plan in missing:
        if plan.task != Kinds.name:
            yield _keep(_run(plan, processes), kept)


def _run(plan: Plan, threads: int) -> Run:
    return stale.run(plan, _TASKS[plan.task](), threads=threads)


def _read(kept: Path | None) -> dict[Plan, Run]:
    if kept is None or not kept.exists():
        return {}
    found = (msgspec.json.decode(line, type=Run) for line in kept.read_bytes().splitlines())
    return {run.plan: run for run in found}


def _keep(run: Run, kept: Path | None) -> Run:
    if kept is not None:
        with kept.open("ab") as file:
            file.write(msgspec.json.encode(run) + b"\n")
    return run


def rows(found: Iterable[Run]) -> list[Row]:
    """The study's table, in the order of the objectives' first runs and of lags."""
    groups: dict[tuple[str, str], dict[int, list[Run]]] = {}
    for run in found:
        by_lag = groups.setdefault((run.plan.task, run.plan.objective), {})
        by_lag.setdefault(run.plan.lag, []).append(run)
    made = []
    for (task, objective), by_lag in groups.items():
        fresh = statistics.fmean(r.reward - r.base for r in by_lag[0]) if 0 in by_lag else 0.0
        for lag, group in sorted(by_lag.items()):
            rewards = [run.reward for run in group]
            gain = statistics.fmean(run.reward - run.base for run in group)
            made.append(
                Row(
                    task=task,
                    objective=objective,
                    lag=lag,
                    reward=round(statistics.fmean(rewards), 4),
                    ci95=interval(rewards),
                    trained_share=round(statistics.fmean(r.trained_share for r in group), 4),
                    gain=round(gain, 4),
                    kept=round(gain / fresh, 4) if fresh > 0.0 else None,
                    clip_fraction=round(statistics.fmean(r.clip_fraction for r in group), 4),
                    ess=round(statistics.fmean(r.ess for r in group), 4),
                    seeds=len(group),
                )
            )
    return made


def interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean, by Student's t.

    >>> interval([0.0, 1.0, 2.0]), interval([1.0])
    (2.4843, None)
    """
    found = estimates.mean(values)
    return None if found.value is None or found.high is None else round(found.high - found.value, 4)


def table(found: Sequence[Row]) -> str:
    """Markdown: a line for each objective, a column for each lag."""
    lags = sorted({row.lag for row in found})
    lines_ = [
        "| objective | " + " | ".join(f"lag {lag}" for lag in lags) + " | kept at 16 |",
        "| --- |" + " --- |" * (len(lags) + 1),
    ]
    for name in dict.fromkeys(row.objective for row in found):
        by_lag = {row.lag: row for row in found if row.objective == name}
        cells = [_cell(by_lag.get(lag)) for lag in lags]
        kept = by_lag[16].kept if 16 in by_lag else None
        cells.append("" if kept is None else f"{kept:.0%}")
        lines_.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines_)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.reward:.2f}" + ("" if row.ci95 is None else f" ± {row.ci95:.2f}")


def picture(found: Sequence[Row], steps: int) -> str:
    """The same as a chart."""
    lags = sorted({row.lag for row in found})
    at = {(row.objective, row.lag): (row.reward, row.ci95 or 0.0) for row in found}
    names = dict.fromkeys(row.objective for row in found)
    return lines(
        [str(lag) for lag in lags],
        [Series(name, [at.get((name, lag)) for lag in lags]) for name in names],
        title=f"Reward after {steps} steps, by age of the weights that answered",
        across="lag, in published versions",
        up="mean reward of the newest version",
        top=1.0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    wanted = plans(options)
    if options.runs is not None:
        options.runs.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for run in runs(wanted, options.runs, options.processes):
        found.append(run)
        if not options.json:
            plan = run.plan
            print(
                f"{len(found)}/{len(wanted)} {plan.task} {plan.objective} lag={plan.lag} "
                f"seed={plan.seed} {run.base:.3f} -> {run.reward:.3f} ess={run.ess:.3f}",
                flush=True,
            )
    found.sort(key=lambda run: wanted.index(run.plan))
    made = rows(found)
    for task in dict.fromkeys(row.task for row in made):
        mine = [row for row in made if row.task == task]
        if not options.json:
            print(f"\n{task}\n{table(mine)}")
        if options.page is not None and task == Kinds.name:
            (options.page / "lag.svg").write_text(picture(mine, options.steps))
    print(json.dumps({"lag": msgspec.to_builtins(made)}))


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.lag", description=__doc__)
    found.add_argument("--objectives", nargs="+", default=OBJECTIVES)
    found.add_argument("--lags", nargs="+", type=int, default=LAGS)
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--steps", type=int, default=512)
    found.add_argument("--lr", type=float, default=1e-3)
    found.add_argument("--processes", type=int, default=2)
    found.add_argument("--runs", type=Path, help="file of finished runs")
    found.add_argument("--page", type=Path, help="directory that gets lag.svg")
    found.add_argument("--smollm", action="store_true")
    found.add_argument("--json", action="store_true")
    return found


if __name__ == "__main__":
    main()
