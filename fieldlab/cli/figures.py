"""Pictures of a report as SVG without scripts: run chart, histogram, bars. Colours follow the page's light or dark."""

import html
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
STYLE = """
:root { --blue: #2a78d6; --aqua: #1baf7a; --yellow: #c98500; --violet: #4a3aa7; --grey: #8a8a86; --grid: #8883; }
@media (prefers-color-scheme: dark) {
  :root { --blue: #3987e5; --aqua: #199e70; --yellow: #c98500; --violet: #9085e9; --grey: #8f8f8a; }
}
figure { margin: 1.2rem 0; } figcaption { font-weight: 600; padding: .3rem 0; }
figure svg { width: 100%; max-width: 60rem; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; } svg .t { opacity: .75; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--line); }
svg .limit { stroke: var(--bad); stroke-dasharray: 5 3; } svg .centre { stroke: var(--grey); }
svg .spec { stroke: var(--bad); stroke-width: 1.5; } svg .curve { fill: none; stroke: currentColor; stroke-width: 1.5; }
svg .run { fill: none; stroke: var(--blue); stroke-width: 1.5; } svg .band { fill: var(--blue); opacity: .35; }
svg .point { fill: var(--blue); } svg .out { fill: var(--bad); }
svg .bar0 { fill: var(--blue); } svg .bar1 { fill: var(--aqua); } svg .bar2 { fill: var(--yellow); }
svg .bar3 { fill: var(--violet); } svg .bar4 { fill: var(--grey); } svg .bar-bad { fill: var(--bad); }
"""
_WIDTH, _HEIGHT = 900, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 120, 12, 30
_MOST_POINTS = 1_500  # above it a run chart draws the range of each column of pixels instead
_CLASSES = 5
_TIME_STEPS = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800, 2592000, 31536000)


class Line(msgspec.Struct, frozen=True):
    """A line across a picture: a limit (dashed), a specification, or a centre, with a short label."""

    at: float
    label: str
    kind: Literal["limit", "spec", "centre"] = "limit"


class RunChart(msgspec.Struct, frozen=True):
    """Values in order, with lines across.

    Attributes:
        caption: what it shows; the unit belongs here.
        x: ascending; ns since 1970 with `time`, else numbers such as a part's.
        y: as many; NaN breaks the line.
        lines: limits and centre.
        out: indices of the points that stand out.
        time: whether `x` is a time.
    """

    caption: str
    x: Sequence[float]
    y: Sequence[float]
    lines: tuple[Line, ...] = ()
    out: tuple[int, ...] = ()
    time: bool = True


class Histogram(msgspec.Struct, frozen=True):
    """Counts in classes. `edges` are one more than `counts`; `curve` is the fitted count of each class, if any."""

    caption: str
    edges: Sequence[float]
    counts: Sequence[float]
    lines: tuple[Line, ...] = ()
    curve: Sequence[float] = ()


class Bars(msgspec.Struct, frozen=True):
    """Horizontal bars, longest label left; several values a bar are stacked and need `series` as legend (at most 5).

    Attributes:
        caption: what it shows; the unit belongs here.
        labels: one a bar.
        values: per bar, one number or one a series; none is negative.
        series: names of the stacked values.
        bad: indices of the bars that stand out.
    """

    caption: str
    labels: Sequence[str]
    values: Sequence[tuple[float, ...]]
    series: tuple[str, ...] = ()
    bad: tuple[int, ...] = ()


Figure = RunChart | Histogram | Bars


def as_svg(figure: Figure) -> str:
    """A `<figure>` with its caption; every mark tells its value when pointed at."""
    draw = {RunChart: _run, Histogram: _histogram, Bars: _bars}[type(figure)]
    svg = draw(figure)  # type: ignore[operator]  # each takes its own kind
    return f"<figure><figcaption>{escape(figure.caption)}</figcaption>\n{svg}\n</figure>"


def escape(value: object) -> str:
    """Text for HTML; characters that would steer a reader are shown as `?`."""
    return html.escape(UNPRINTABLE.sub("?", str(value)))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in [low, high], about `count` of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [
        round(i * step, 12) if abs(i * step) < 1e9 else i * step
        for i in range(first, math.floor(high / step + 1e-9) + 1)
    ]


class _Axis:
    """Maps numbers to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high)):
            low, high = 0.0, 1.0
        if high <= low:
            low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        self.low, self.high, self._start, self._scale = low, high, start, (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return round(self._start + (value - self.low) * self._scale, 1)


def _frame(body: list[str], height: int, words: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(words)}">' + "".join(body) + "</svg>"


def _text(x: float, y: float, words: str, anchor: str = "start", soft: bool = False) -> str:
    kind = "t" if soft else "label"
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>'


def _apart(wanted: list[float], gap: float = 14.0) -> list[float]:
    """Places of labels along an axis, moved on so that none covers another; given ascending."""
    out: list[float] = []
    for place in wanted:
        out.append(max(place, out[-1] + gap) if out else place)
    return out


def _number(value: float) -> str:
    return f"{value:.6g}"


def _run(figure: RunChart) -> str:
    x, y = np.asarray(figure.x, np.float64), np.asarray(figure.y, np.float64)
    there = np.isfinite(y)
    everything = [*y[there].tolist(), *(line.at for line in figure.lines)]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    pad = (high - low) * 0.06
    across = _Axis(float(x[0]) if len(x) else 0.0, float(x[-1]) if len(x) else 1.0, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(low - pad, high + pad, _HEIGHT - _BOTTOM, _TOP)
    body = []
    for tick in ticks(up.low, up.high):
        body += [_segment(_LEFT, up(tick), _WIDTH - _RIGHT, up(tick), "grid")]
        body += [_text(_LEFT - 6, up(tick) + 4, _number(tick), "end", soft=True)]
    body += [_text(across(at), _HEIGHT - 8, words, "middle", soft=True) for at, words in _x_labels(figure, across)]
    if np.count_nonzero(there) > _MOST_POINTS:
        body.append(_band(x[there], y[there], across, up))
    else:
        for piece in np.split(np.arange(len(y)), np.flatnonzero(~there)):
            points = " ".join(f"{across(x[i])},{up(y[i])}" for i in piece.tolist() if there[i])
            if points:
                body.append(f'<polyline points="{points}" class="run"/>')
        if np.count_nonzero(there) <= 200:
            body += [_dot(across(x[i]), up(y[i]), "point", 2.5, y[i]) for i in np.flatnonzero(there).tolist()]
    ordered = sorted(figure.lines, key=lambda line: -line.at)
    for line, place in zip(ordered, _apart([up(line.at) + 4 for line in ordered]), strict=True):
        body.append(_segment(_LEFT, up(line.at), _WIDTH - _RIGHT, up(line.at), line.kind))
        body.append(_text(_WIDTH - _RIGHT + 6, place, f"{line.label} {_number(line.at)}"))
    body += [_dot(across(x[i]), up(y[i]), "out", 4, y[i]) for i in figure.out[:2000] if there[i]]
    return _frame(body, _HEIGHT, figure.caption)


def _dot(x: float, y: float, kind: str, radius: float, value: float) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" class="{kind}"><title>{_number(value)}</title></circle>'


def _band(x: np.ndarray, y: np.ndarray, across: _Axis, up: _Axis) -> str:
    column = np.round((x - across.low) / (across.high - across.low) * (_WIDTH - _RIGHT - _LEFT)).astype(int)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    lows, highs = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    places = [across(value) for value in x[starts].tolist()]
    there = [f"{p},{up(v)}" for p, v in zip(places, highs.tolist(), strict=True)]
    back = [f"{p},{up(v) + 1}" for p, v in zip(places, lows.tolist(), strict=True)]
    return f'<polygon points="{" ".join(there + back[::-1])}" class="band"/>'


def _x_labels(figure: RunChart, across: _Axis) -> list[tuple[float, str]]:
    if not figure.time:
        return [(tick, _number(tick)) for tick in ticks(across.low, across.high, 8)]
    low, high = across.low / 1e9, across.high / 1e9
    step = next((s for s in _TIME_STEPS if (high - low) / s <= 8), _TIME_STEPS[-1])
    words = (
        "%H:%M:%S" if step < 60 else "%H:%M" if high - low < 86400 else "%m-%d %H:%M" if step < 86400 else "%Y-%m-%d"
    )
    first = math.ceil(low / step)
    found = [first * step + i * step for i in range(int((high - first * step) / step) + 1)]
    try:
        return [(at * 1e9, datetime.fromtimestamp(at, UTC).strftime(words)) for at in found]
    except (OverflowError, ValueError, OSError):
        return []


def _histogram(figure: Histogram) -> str:
    edges, counts = [float(e) for e in figure.edges], [float(c) for c in figure.counts]
    ends = [*edges, *(line.at for line in figure.lines)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    pad = (high - low) * 0.03
    across = _Axis(low - pad, high + pad, _LEFT, _WIDTH - 30)
    top = max([*counts, *figure.curve, 1.0])
    up = _Axis(0.0, top * 1.05, _HEIGHT - _BOTTOM, _TOP + 32)
    body = []
    for tick in ticks(0.0, top, 4):
        body += [_segment(_LEFT, up(tick), _WIDTH - 30, up(tick), "grid")]
        body += [_text(_LEFT - 6, up(tick) + 4, _number(tick), "end", soft=True)]
    for tick in ticks(across.low, across.high, 8):
        body.append(_text(across(tick), _HEIGHT - 8, _number(tick), "middle", soft=True))
    for (a, b), count in zip(pairwise(edges), counts, strict=True):
        x, width = across(a), max(across(b) - across(a) - 1, 1)
        words = f"{_number(a)} to {_number(b)}: {_number(count)}"
        body.append(
            f'<rect x="{x}" y="{up(count)}" width="{round(width, 1)}" height="{round(up(0) - up(count), 1)}" '
            f'class="bar0"><title>{words}</title></rect>'
        )
    if len(figure.curve):
        middles = [(a + b) / 2 for a, b in pairwise(edges)]
        points = " ".join(f"{across(m)},{up(v)}" for m, v in zip(middles, figure.curve, strict=True))
        body.append(f'<polyline points="{points}" class="curve"/>')
    body.append(_segment(_LEFT, up(0), _WIDTH - 30, up(0), "axis"))
    for i, line in enumerate(sorted(figure.lines, key=lambda line: line.at)):
        body.append(_segment(across(line.at), _TOP + 32, across(line.at), up(0), line.kind))
        row = _TOP + 4 + (i % 2) * 15  # two rows, so that neighbours do not cover each other
        body.append(_text(across(line.at), row + 6, f"{line.label} {_number(line.at)}", "middle"))
    return _frame(body, _HEIGHT, figure.caption)


def _bars(figure: Bars) -> str:
    left, row = min(40 + 7 * max((len(label) for label in figure.labels), default=0), 360), 24
    top = 24 if figure.series else 6
    height = top + row * len(figure.labels) + 6
    across = _Axis(0.0, max([sum(v) for v in figure.values] + [1e-12]), left, _WIDTH - 90)
    body, at = [], float(left)
    for i, name in enumerate(figure.series):
        body.append(f'<rect x="{at}" y="4" width="12" height="12" class="bar{i % _CLASSES}"/>')
        body.append(_text(at + 17, 14, name))
        at += 40 + 7 * len(name)
    for i, (label, values) in enumerate(zip(figure.labels, figure.values, strict=True)):
        y, total = top + i * row, 0.0
        body.append(_text(left - 8, y + 15, label[:48], "end"))
        for j, value in enumerate(values):
            kind = "bar-bad" if i in figure.bad else f"bar{j % _CLASSES}"
            width = max(across(total + value) - across(total) - (1 if len(values) > 1 else 0), 0)
            name = f"{figure.series[j]}, " if figure.series else ""
            body.append(
                f'<rect x="{across(total)}" y="{y + 3}" width="{round(width, 1)}" height="{row - 7}" class="{kind}">'
                f"<title>{escape(name)}{escape(label)}: {_number(value)}</title></rect>"
            )
            total += value
        body.append(_text(across(total) + 6, y + 15, f"{total:.4g}"))
    return _frame(body, height, figure.caption)
