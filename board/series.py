"""The newest points of every control chart, kept between refreshes so that each reads only what is new."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from board.view import milliseconds
from fieldlab.model import ChartPoint, Finding, Place, SignalKey
from ingest.stores.base import Reader

MAX_POINTS = 400  # of one chart
MAX_CHARTS = 500
_READ = 20_000
_EVER = 2**63 - 1
_LATE = 10 * 10**9  # results may be written this much out of order, ns
_ACTIVE = 3600 * 10**9  # a chart silent for longer waits for the next whole read, ns

ChartKey = tuple[Place, str, str]


def key_of(row: ChartPoint | Finding) -> ChartKey:
    """Place, signal and chart: what makes one control chart."""
    return row.place, row.signal, row.chart


def chart_id(key: ChartKey) -> str:
    """A short name for URLs: 16 hexadecimal digits."""
    place, signal, chart = key
    return hashlib.blake2b(f"{place.path}\0{signal}\0{chart}".encode(), digest_size=8).hexdigest()


class Charts:
    """A window of `MAX_POINTS` on each control chart. Used by one thread at a time."""

    def __init__(self) -> None:
        self._points: dict[ChartKey, dict[int, ChartPoint]] = {}

    def read_all(self, reader: Reader) -> None:
        """Read the window afresh, so that what was corrected or deleted shows too."""
        points = reader.chart_points(0, _EVER, limit=_READ)
        known = {chart: 0 for _, _, chart in self._points} | {p.chart: 0 for p in points}
        if len(points) >= _READ:  # busy charts may have crowded out the quiet ones: ask for each by name
            for key in {*self._points, *map(key_of, points)}:
                known[key[2]] += 1
            for chart, series in list(known.items())[:MAX_CHARTS]:
                points += reader.chart_points(0, _EVER, chart=chart, limit=MAX_POINTS * series)
        self._points = {}
        self._add(points)

    def read_new(self, reader: Reader) -> None:
        """Read from the least of what the active charts have."""
        newest = [max(series) for series in self._points.values() if series]
        if not newest:
            self.read_all(reader)
            return
        start = min(t for t in newest if t >= max(newest) - _ACTIVE) - _LATE
        self._add(reader.chart_points(start, _EVER, limit=_READ))

    def _add(self, points: Iterable[ChartPoint]) -> None:
        touched = set()
        for point in points:
            key = key_of(point)
            if key not in self._points and len(self._points) >= MAX_CHARTS:
                continue
            self._points.setdefault(key, {})[point.time] = point
            touched.add(key)
        for key in touched:
            series = self._points[key]
            self._points[key] = {t: series[t] for t in sorted(series)[-MAX_POINTS:]}

    def index(self, units: Mapping[SignalKey, str]) -> list[dict[str, Any]]:
        """Every chart: its name, its newest figures and whether it is still learning its limits."""
        rows = []
        for key in sorted(self._points):
            place, signal, chart = key
            last = list(self._points[key].values())[-1]
            rows.append(
                {
                    "id": chart_id(key),
                    "path": place.path,
                    "machine": place.machine,
                    "signal": signal,
                    "chart": chart,
                    "unit": units.get(SignalKey(place, signal), ""),
                    "points": len(self._points[key]),
                    "last": figures(last),
                }
            )
        return rows

    def key(self, name: str) -> ChartKey | None:
        """What a `chart_id` stands for."""
        return next((key for key in self._points if chart_id(key) == name), None)

    def data(self, findings: Iterable[Finding]) -> dict[str, dict[str, Any]]:
        """Chart id → its points as columns, with the findings that fall into the window."""
        by_chart: dict[ChartKey, list[Finding]] = {}
        for finding in findings:
            by_chart.setdefault(key_of(finding), []).append(finding)
        return {
            chart_id(key): columns(list(series.values()), by_chart.get(key, ())) for key, series in self._points.items()
        }


def figures(point: ChartPoint) -> dict[str, Any]:
    """One point: statistic, centre, limits and their version."""
    return {
        "time": milliseconds(point.time),
        "statistic": point.statistic,
        "center": point.center,
        "ucl": point.ucl,
        "lcl": point.lcl,
        "version": point.limits_version,
    }


def columns(points: list[ChartPoint], findings: Iterable[Finding]) -> dict[str, Any]:
    """Points, ascending in time, as columns; with the findings among them, each at the row that raised it."""
    marks = []
    for finding in findings:
        row = raised_at(points, finding)
        if row is not None:
            marks.append(
                {
                    "row": row,
                    "id": finding.id,
                    "rule": finding.rule,
                    "state": finding.state,
                    "severity": finding.severity,
                    "part": finding.part,
                    "detail": finding.detail,
                }
            )
    return {
        "time": [milliseconds(p.time) for p in points],
        "statistic": [p.statistic for p in points],
        "center": [p.center for p in points],
        "ucl": [p.ucl for p in points],
        "lcl": [p.lcl for p in points],
        "version": [p.limits_version for p in points],
        "findings": marks,
    }


def raised_at(points: list[ChartPoint], finding: Finding) -> int | None:
    """The row of the point that raised a finding; None if it lies outside the window.

    A later revision carries its own time but still the statistic that raised it, which then tells the point.
    """
    at_or_before = [row for row, p in enumerate(points) if p.time <= finding.time]
    for row in reversed(at_or_before):
        if points[row].statistic == finding.statistic:
            return row
    exact = at_or_before and points[at_or_before[-1]].time == finding.time
    return at_or_before[-1] if exact else None
