"""Small charts as inline SVG: lines and histograms, readable on a phone, in light and dark, without a script."""

from collections.abc import Sequence
from html import escape
from math import floor, isfinite, log10
from typing import NamedTuple

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
COLORS = ("#3a60be", "#d6703a", "#26a04c", "#9c4fc0", "#b3261e", "#008c95", "#8a7a00", "#777777")


class Line(NamedTuple):
    """One curve: points (x, y) in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


def line_chart(
    title: str, lines: Sequence[Line], *, x: str, y: str = "", percent: bool = False
) -> str:
    """A <figure> with one curve per line and their names below; "" when there is no point at all."""
    lines = [
        line._replace(points=tuple(p for p in line.points if isfinite(p[1]))) for line in lines
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    points = [point for line in lines for point in line.points]
    heights = (0.0, 1.0) if percent else _span([p[1] for p in points], from_zero=True)
    widths = _span([p[0] for p in points], from_zero=x == "epoch")
    frame = _Frame(widths, heights, percent)
    marks = []
    for line, color in zip(lines, _cycle(len(lines)), strict=True):
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in line.points)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        if len(line.points) < 30:
            marks += [
                f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="2.4" fill="{color}">'
                f"<title>{escape(line.name)}: {frame.number(b)} at {a:g}</title></circle>"
                for a, b in line.points
            ]
    return _figure(title, frame, marks, x=x, y=y, names=[line.name for line in lines])


def histogram(
    title: str, edges: Sequence[float], counts: dict[str, Sequence[float]], *, x: str
) -> str:
    """A <figure> with overlaid histograms over the same edges [B + 1], each scaled to shares of its own counts [B]."""
    shares = {
        name: [c / max(sum(values), 1e-12) for c in values] for name, values in counts.items()
    }
    highest = max((max(values) for values in shares.values()), default=0)
    if not highest:
        return ""
    frame = _Frame((edges[0], edges[-1]), (0.0, highest), percent=True)
    marks = []
    for values, color in zip(shares.values(), _cycle(len(shares)), strict=True):
        corners = [(edges[0], 0.0)]
        for k, share in enumerate(values):
            corners += [(edges[k], share), (edges[k + 1], share)]
        path = " ".join(
            f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in (*corners, (edges[-1], 0.0))
        )
        marks.append(
            f'<polygon points="{path}" fill="{color}" fill-opacity=".35" stroke="{color}"/>'
        )
    return _figure(title, frame, marks, x=x, y="share of pairs", names=list(counts))


class _Frame(NamedTuple):
    """From values to pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    percent: bool

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def number(self, value: float) -> str:
        return f"{100 * value:.3g}%" if self.percent else f"{value:.3g}"


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers between two bounds: steps of 1, 2 or 5 times a power of ten, at most `most` steps."""
    step = 10.0 ** floor(log10((high - low) / most))
    step = next(
        step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most
    )
    first = -floor(1e-9 - low / step)
    return [round(k * step, 12) for k in range(first, floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float], *, from_zero: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    low = min(low, 0.0) if from_zero else low
    return (low, high) if high > low else (low, low + 1)


def _cycle(count: int) -> list[str]:
    return [COLORS[k % len(COLORS)] for k in range(count)]


def _figure(
    title: str, frame: _Frame, marks: Sequence[str], *, x: str, y: str, names: Sequence[str]
) -> str:
    grid = []
    for value in ticks(*frame.y_range):
        at = frame.y(value)
        grid.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
        )
        grid.append(
            f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{frame.number(value)}</text>'
        )
    for value in ticks(*frame.x_range):
        grid.append(
            f'<text x="{frame.x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{value:g}</text>'
        )
    axis = f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x)}</text>'
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for name, color in zip(names, _cycle(len(names)), strict=True)
    )
    caption = escape(f"{title} ({y})" if y else title)
    return (
        f'<figure class="chart"><figcaption>{caption}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{caption}">{"".join(grid)}{axis}{"".join(marks)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )
