"""A small line chart with intervals, as SVG text. Called by :mod:`benchmarks.lag`."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 40, 56
# Told apart without red and green: Okabe and Ito's colours.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#8a7a00")


class Series(msgspec.Struct, frozen=True):
    """One line: a value and half an interval at each place of the axis; None: not measured."""

    name: str
    points: Sequence[tuple[float, float] | None]


def lines(
    places: Sequence[str], series: Sequence[Series], *, title: str, across: str, up: str, top: float
) -> str:
    """The chart: ``places`` evenly spaced from left to right, values from 0 to ``top`` upwards."""

    def x(place: int, line: int) -> float:
        # Side by side, or intervals would hide each other.
        apart = 5.0 * (line - (len(series) - 1) / 2)
        room = WIDTH - _LEFT - _RIGHT
        return round(_LEFT + (place + 0.5) * room / len(places) + apart, 1)

    def y(value: float) -> float:
        room = HEIGHT - _TOP - _BOTTOM
        return round(HEIGHT - _BOTTOM - min(max(value / top, 0.0), 1.0) * room, 1)

    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for tick in range(6):
        value = top * tick / 5
        parts += [
            f'<path d="M{_LEFT} {y(value)}H{right}" stroke="#dddddd"/>',
            f'<text x="{_LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value:.1f}</text>',
        ]
    middle = len(series) / 2 - 0.5
    for place, name in enumerate(places):
        parts.append(
            f'<text x="{x(place, 0) + 5.0 * middle:.1f}" y="{floor + 20}" '
            f'text-anchor="middle">{escape(name)}</text>'
        )
    center = (_TOP + floor) / 2
    parts += [
        f'<text x="{(_LEFT + right) / 2}" y="{floor + 42}" text-anchor="middle">'
        f"{escape(across)}</text>",
        f'<text transform="translate(18 {center}) rotate(-90)" text-anchor="middle">'
        f"{escape(up)}</text>",
    ]
    for number, one in enumerate(series):
        color = COLORS[number % len(COLORS)]
        known = [(p, *point) for p, point in enumerate(one.points) if point is not None]
        path = "L".join(f"{x(p, number)} {y(value)}" for p, value, _ in known)
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for place, value, half in known:
            at = x(place, number)
            parts += [
                f'<path d="M{at} {y(value - half)}V{y(value + half)}" stroke="{color}"/>',
                f'<circle cx="{at}" cy="{y(value)}" r="3.5" fill="{color}"/>',
            ]
        beside = _TOP + 12 + 20 * number
        parts += [
            f'<path d="M{right + 14} {beside - 4}h22" stroke="{color}" stroke-width="2"/>',
            f'<text x="{right + 42}" y="{beside}">{escape(one.name)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
