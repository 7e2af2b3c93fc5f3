"""The terminal view, drawn without a terminal."""

import io

from rich.console import Console

from services.local import view
from services.local.lines import Line
from services.local.picture import Picture, Version


def _picture() -> Picture:
    picture = Picture()
    picture.phase = "learning"
    for number in range(200):
        picture.user(
            Line(
                kind="answer",
                time_ms=1000 * number,
                asked_ms=1000 * number,
                liked=number > 100,
                question="What is [red]a river[/red]?",
                text="Water.\n\nMore water",
            )
        )
    picture.process("trainer", "running", 42, 1)
    picture.versions.append(
        Version(version=1, time_ms=90_000, kind="delta", bytes=3_000_000, zero_step=False)
    )
    picture.say("version 1 published")
    return picture


def _drawn(picture: Picture) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(view.screen(picture, title="demo", hints=["tailrace status"], now_ms=200_000))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_graph_rises_with_its_values() -> None:
    rows = view.graph([0.0, 0.25, 0.5, 1.0, None], 4)
    assert [len(row) for row in rows] == [5] * 4
    assert rows[0] == "   █ "
    assert rows[3] == "▁███ "


def test_the_curve_follows_the_window_and_marks_versions() -> None:
    values, marks = view.curve(_picture(), 199_000, 40)
    assert values[:3] == [None, 0.0, 0.0]
    assert values[-1] == 1.0
    assert marks.index("▲") == 18


def test_the_screen_says_what_matters() -> None:
    text = _drawn(_picture())
    for part in ("100%", "▲", "trainer", "restarted 1x", "version 1 published", "tailrace status"):
        assert part in text, part
    assert "[red]a river[/red]" in text, "what users say is no markup"
    assert len(text.splitlines()) <= 32


def test_a_picture_of_nothing_can_be_drawn() -> None:
    assert "preparing" in _drawn(Picture())
    assert "liked -" in view.line(Picture(), 1.0)
