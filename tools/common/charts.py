"""Line charts and histograms as inline SVG for light and dark pages, without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

from ember_reid.tools.common.html import render

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
COLORS = ("#3a60be", "#d6703a", "#26a04c", "#9c4fc0", "#b3261e", "#008c95", "#8a7a00", "#777777")
# Lines with fewer points are drawn with dots.
MAX_DOTS = 30


@dataclass(frozen=True)
class Line:
    """One curve: points (x, y) in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Curve:
    """A curve in pixels, for the template."""

    name: str
    color: str
    path: str
    dots: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class _Axes:
    """Ranges of values, and their positions in pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    percent: bool

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)

    def number(self, value: float) -> str:
        return f"{100 * value:.3g}%" if self.percent else f"{value:.3g}"


def line_chart(
    title: str, lines: Sequence[Line], *, x: str, y: str = "", percent: bool = False
) -> str:
    """A <figure> with one curve per line and a legend; "" if there are no finite points.

    Args:
        title: title of the chart.
        lines: curves; points that are not finite are left out.
        x, y: labels of the axes. An x axis of epochs starts at zero.
        percent: whether y is a fraction in [0, 1].
    """
    finite = [(line.name, [p for p in line.points if isfinite(p[1])]) for line in lines]
    finite = [(name, values) for name, values in finite if values]
    if not finite:
        return ""
    points = [point for _, values in finite for point in values]
    y_range = (0.0, 1.0) if percent else _span([p[1] for p in points], from_zero=True)
    axes = _Axes(_span([p[0] for p in points], from_zero=x == "epoch"), y_range, percent)
    curves = [
        _Curve(name, color, axes.path(values), _dots(axes, name, values))
        for (name, values), color in zip(finite, _colors(len(finite)), strict=True)
    ]
    return _draw(title, axes, curves, x=x, y=y)


def _dots(
    axes: _Axes, name: str, points: Sequence[tuple[float, float]]
) -> tuple[tuple[str, str, str], ...]:
    """(x, y, text) of each point of a line with few points."""
    if len(points) >= MAX_DOTS:
        return ()
    return tuple(
        (f"{axes.x(x):.1f}", f"{axes.y(y):.1f}", f"{name}: {axes.number(y)} at {x:g}")
        for x, y in points
    )


def histogram(
    title: str, edges: Sequence[float], counts: Mapping[str, Sequence[float]], *, x: str
) -> str:
    """A <figure> with overlaid histograms; "" if all counts are zero.

    Args:
        title: title of the chart.
        edges: edges of the bins [B + 1].
        counts: name -> counts [B]. Each histogram is scaled to the shares of its own total.
        x: label of the x axis.
    """
    shares = {
        name: [count / max(sum(values), 1e-12) for count in values]
        for name, values in counts.items()
    }
    highest = max((max(values) for values in shares.values()), default=0)
    if not highest:
        return ""
    axes = _Axes((edges[0], edges[-1]), (0.0, highest), percent=True)
    curves = []
    for (name, values), color in zip(shares.items(), _colors(len(shares)), strict=True):
        corners = [(edges[0], 0.0)]
        for k, share in enumerate(values):
            corners += [(edges[k], share), (edges[k + 1], share)]
        curves.append(_Curve(name, color, axes.path([*corners, (edges[-1], 0.0)])))
    return _draw(title, axes, curves, x=x, y="share of pairs", filled=True)


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers in [low, high], at most `most` steps of 1, 2 or 5 times a power of ten."""
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


def _colors(count: int) -> list[str]:
    return [COLORS[k % len(COLORS)] for k in range(count)]


def _draw(
    title: str, axes: _Axes, curves: Sequence[_Curve], *, x: str, y: str, filled: bool = False
) -> str:
    content = {
        "caption": f"{title} ({y})" if y else title,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "x_ticks": [(f"{v:g}", round(axes.x(v), 1)) for v in ticks(*axes.x_range)],
        "y_ticks": [(axes.number(v), round(axes.y(v), 1)) for v in ticks(*axes.y_range)],
        "x_name": x,
        "curves": curves,
        "filled": filled,
    }
    return render("chart.html", content)
