"""What the page asks for by name: one part, one finding with its evidence, one chart over any time."""

from collections.abc import Sequence
from typing import Any

from board import series, view
from fieldlab.model import ChartPoint, Finding, PartEvent, SignalInfo, SignalKey, Verdict
from ingest.stores.base import Reader

MAX_POINTS = 2_000  # of one chart in one answer
MAX_EVENTS = 500  # of one part
EVIDENCE = 120  # points on either side of the one that raised a finding
_EVER = 2**63 - 1
_READ = 50_000  # points that a window may hold before it is cut to its newest
_AROUND = 24 * 3600 * 10**9  # evidence is looked for within a day, ns


def part(reader: Reader, part_id: str) -> dict[str, Any] | None:
    """A part's verdicts in all revisions, its history, and what consumed it; None if nobody knows it."""
    verdicts = reader.part_verdicts(part_id, limit=MAX_EVENTS)
    events = reader.part_events(part_id, limit=MAX_EVENTS)
    used = reader.consumers(part_id, limit=MAX_EVENTS)
    if not verdicts and not events and not used:
        return None
    return {
        "id": part_id,
        "verdicts": [_verdict(v) for v in reversed(verdicts)],
        "events": [_event(e) for e in events],
        "used": [_event(e) for e in used],
    }


def _verdict(v: Verdict) -> dict[str, Any]:
    features = [{"name": name, "value": value} for name, value in sorted(v.features.items())]
    return view.part_row(v) | {"features": features, "limits_versions": v.limits_versions}


def _event(e: PartEvent) -> dict[str, Any]:
    return {
        "time": view.milliseconds(e.time),
        "path": e.place.path,
        "machine": e.place.machine,
        "event": e.event,
        "id": e.id,
        "other": e.other,
        "value": e.value,
        "text": e.text,
    }


def finding(reader: Reader, finding_id: str, infos: Sequence[SignalInfo]) -> dict[str, Any] | None:
    """Every revision of a finding, and the points that it came from; None if nobody knows it."""
    revisions = reader.finding(finding_id)
    if not revisions:
        return None
    raised, newest = revisions[0], revisions[-1]
    points = _points(reader, raised, raised.time - _AROUND, max(newest.time, raised.time) + _AROUND)
    row = series.raised_at(points, raised)
    if row is not None:
        points = points[max(0, row - EVIDENCE) : row + EVIDENCE]
    units = {info.key: info.unit for info in infos}
    return {
        "id": finding_id,
        "chart_id": series.chart_id(series.key_of(raised)),
        "revisions": [view.finding_row(f, units) for f in revisions],
        "evidence": _figure(raised, points, [newest], units),
    }


def window(reader: Reader, key: series.ChartKey, start: int, end: int, infos: Sequence[SignalInfo]) -> dict[str, Any]:
    """A chart over [start, end) ns: its newest `MAX_POINTS` there, and the findings among them."""
    place, signal, chart = key
    like = Finding(time=0, place=place, signal=signal, chart=chart, rule="", id="")
    points = _points(reader, like, start, end)
    found = [f for f in reader.findings(start, end, limit=_READ) if series.key_of(f) == key]
    units = {info.key: info.unit for info in infos}
    return _figure(like, points[-MAX_POINTS:], found, units) | {"left_out": max(0, len(points) - MAX_POINTS)}


def _points(reader: Reader, like: Finding, start: int, end: int) -> list[ChartPoint]:
    key = series.key_of(like)
    rows = reader.chart_points(max(0, start), min(end, _EVER), chart=like.chart, limit=_READ)
    return [row for row in rows if series.key_of(row) == key]


def _figure(
    like: Finding, points: list[ChartPoint], findings: Sequence[Finding], units: dict[SignalKey, str]
) -> dict[str, Any]:
    last = series.figures(points[-1]) if points else None
    return {
        "id": series.chart_id(series.key_of(like)),
        "path": like.place.path,
        "machine": like.place.machine,
        "signal": like.signal,
        "chart": like.chart,
        "unit": units.get(SignalKey(like.place, like.signal), ""),
        "last": last,
        "columns": series.columns(points, findings),
    }
