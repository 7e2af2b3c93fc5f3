"""The demo on a terminal: the reward as a curve, what moves, what is waiting, who is alive.

:func:`screen` is a pure function from the picture to something rich can draw; :func:`line` is the
same in one line, for where there is no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.local.picture import WINDOW, Picture
from tailrace.estimates import quantile

_BLOCKS = " ▁▂▃▄▅▆▇█"
_GRAPH_WIDTH = 64
_GRAPH_HEIGHT = 6
_HINT_S = 12.0
_FEWEST = 10
"""A share of fewer answers than this is not drawn: it would only jump."""


def graph(values: Sequence[float | None], height: int) -> list[str]:
    """Columns of block characters, top line first; values from 0 to 1, None leaves a gap.

    >>> graph([0.0, 0.5, 1.0], 2)
    ['  █', '▁██']
    """
    rows = []
    for row in range(height - 1, -1, -1):
        cells = ""
        for value in values:
            if value is None:
                cells += " "
                continue
            eighths = max(1, round(value * height * 8)) - row * 8
            cells += _BLOCKS[max(0, min(8, eighths))]
        rows.append(cells)
    return rows


def curve(picture: Picture, now_ms: int, columns: int) -> tuple[list[float | None], str]:
    """The moving share over the time of the run in so many columns; a line that marks versions."""
    if not picture.answers:
        return [None] * columns, " " * columns
    start_ms = picture.answers[0].time_ms
    each_ms = max(now_ms - start_ms, 30_000) / columns
    values: list[float | None] = []
    seen = 0
    for column in range(columns):
        if start_ms + column * each_ms > now_ms:
            values.append(None)
            continue
        until = start_ms + (column + 1) * each_ms
        while seen < len(picture.answers) and picture.answers[seen].time_ms <= until:
            seen += 1
        window = picture.answers[max(0, seen - WINDOW) : seen]
        few = len(window) < min(_FEWEST, len(picture.answers))
        values.append(None if few else sum(a.liked for a in window) / len(window))
    marks = [" "] * columns
    for version in picture.versions:
        column = int((version.time_ms - start_ms) / each_ms)
        if 0 <= column < columns and not version.zero_step:
            marks[column] = "▲"
    return values, "".join(marks)


def screen(picture: Picture, *, title: str, hints: Sequence[str], now_ms: int) -> Group:
    """Everything, for a terminal of 80 columns or more."""
    hint = hints[int(now_ms / 1000 / _HINT_S) % len(hints)] if hints else ""
    tables = Table.grid(expand=True, padding=(0, 2))
    tables.add_column(ratio=3)
    tables.add_column(ratio=2)
    tables.add_row(_numbers(picture), _processes(picture))
    if picture.answers:
        body = Group(_curve(picture, now_ms), tables, _talk(picture))
    else:
        body = Group(_processes(picture))
    return Group(
        Panel(body, title=title, subtitle=picture.phase, title_align="left"),
        Text.assemble(("happened  ", "dim"), picture.happened or "-", overflow="ellipsis"),
        Text.assemble(("try       ", "dim"), (hint, "cyan"), overflow="ellipsis"),
    )


def _curve(picture: Picture, now_ms: int) -> Text:
    values, marks = curve(picture, now_ms, _GRAPH_WIDTH)
    text = Text(no_wrap=True)
    share = picture.share()
    text.append(f"liked answers, the last {WINDOW}: ", "dim")
    text.append("-\n" if share is None else f"{share:.0%}\n", "bold green")
    rows = graph(values, _GRAPH_HEIGHT)
    for number, row in enumerate(rows):
        scale = {0: "100% ", len(rows) - 1: "  0% "}.get(number, "     ")
        text.append(scale, "dim")
        text.append(row + "\n", "green")
    text.append("     " + marks, "magenta")
    text.append(" versions", "dim")
    return text


def _numbers(picture: Picture) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(justify="right")
    samples_s = picture.latency.samples_s()
    served = f"{_number(quantile(samples_s, 0.5))} / {_number(quantile(samples_s, 0.95))} s"
    weights = [v for v in picture.versions if not v.zero_step]
    sizes = [float(v.bytes) / 1e6 for v in weights if v.kind == "delta" and v.bytes]
    rows = (
        (
            "answers, votes, failed",
            f"{len(picture.answers)}, {len(picture.votes)}, {len(picture.failed)}",
        ),
        ("versions, serving", f"{len(weights)}, {_number(picture.serving, 0)}"),
        ("feedback to served p50 / p95", served),
        ("feedback waiting", str(picture.feedback_waiting())),
        ("trajectories waiting", str(picture.trajectories_waiting())),
        ("step p50", f"{_number(quantile(picture.steps_s, 0.5))} s"),
        (
            "update p50, pause p50",
            f"{_number(quantile(sizes, 0.5), 2)} MB, "
            f"{_number(quantile(picture.pauses_ms, 0.5), 0)} ms",
        ),
        ("alarms, dead letters", f"{len(picture.alarms)}, {picture.dead_letters}"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


def _processes(picture: Picture) -> Table:
    table = Table.grid(padding=(0, 1))
    colors = {"running": "green", "ready": "green", "waiting": "yellow", "refused": "red"}
    for process in picture.processes.values():
        again = f"restarted {process.restarts}x" if process.restarts else ""
        color = colors.get(process.state, "dim")
        state, pid = Text(process.state, color), str(process.pid or "")
        table.add_row(Text("●", color), process.name, state, pid, again)
    return table


def _talk(picture: Picture) -> Text:
    text = Text(overflow="ellipsis", no_wrap=True)
    for answer in picture.recent:
        text.append("\n")
        text.append("✓ " if answer.liked else "✗ ", "green" if answer.liked else "red")
        text.append(f"{answer.question} ", "dim")
        text.append(" ".join(answer.text.split()))
    return text


def line(picture: Picture, elapsed_s: float) -> str:
    """The picture in one line."""
    share = picture.share()
    weights = sum(not v.zero_step for v in picture.versions)
    served = quantile(picture.latency.samples_s(), 0.5)
    return (
        f"{elapsed_s:6.1f} s  {picture.phase}: liked {'-' if share is None else f'{share:.0%}'}  "
        f"answers {len(picture.answers)}  votes {len(picture.votes)}  "
        f"failed {len(picture.failed)}  "
        f"versions {weights}  serving {_number(picture.serving, 0)}  "
        f"to served {_number(served)} s  waiting {picture.feedback_waiting()} feedback "
        f"{picture.trajectories_waiting()} trajectories"
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
