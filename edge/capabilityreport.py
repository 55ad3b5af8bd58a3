"""What the processes can do: capability of every signal with specification limits, and false alarms beside the design.

Works on either store, by its `Reader` alone. Answers are plain values, as `fieldlab report capability --format json`
prints. A signal's values are a feature of each part, where a chart with one value a part names it; else its readings.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from analytics.capability import Capability, Spec, capability
from analytics.config import XBAR_KINDS, AnalyticsConfig, ChartConfig, span_ns
from analytics.load import machine_load
from edge.config import AgentConfig
from fieldlab.model import ChartPoint, Finding, Place, SignalInfo, SignalKey, Verdict
from fieldlab.model.status import is_good
from ingest.stores.base import Reader, StoreError

Floats = NDArray[np.float64]
FOREVER = 2**63 - 1
MOST_VALUES = 100_000  # of a signal: the newest
MOST_PARTS = 1_000_000
MOST_FINDINGS = 100_000
_SHOWN = 1_000  # points of a run chart
_POINTS = 50_000  # chart points that are looked through for the limits in force
_UNLIKELY = 0.01  # chance of so many false alarms below which they are none
_IN_UNIT = ("mean", "last", "min", "max")
_NOT_OF_A_CHART = frozenset({"baseline"})  # rules that say nothing of the process


class Values(NamedTuple):
    """What a signal is judged by: times, numbers, what each is, and whether there are more than are read."""

    time: NDArray[np.int64]
    value: Floats
    each: str
    cut: bool = False


class Alarms(NamedTuple):
    """Findings of the charts on a signal: how many a chart, in words, and why they show an unstable process, if so."""

    counts: dict[str, int]
    words: list[str]
    unstable: str


def summary(reader: Reader, config: AgentConfig, since: int) -> dict[str, Any]:
    """Capability of each signal, and findings of each chart, of what happened at or after `since` (ns)."""
    infos = reader.signals()
    limited = [i for i in infos if i.kind in ("gauge", "counter") and (i.lsl is not None or i.usl is not None)]
    analytics = config.analytics()
    findings = [f for f in reader.findings(since, FOREVER, limit=MOST_FINDINGS) if f.rule not in _NOT_OF_A_CHART]
    of_signal: dict[tuple[SignalKey, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        of_signal[SignalKey(finding.place, finding.signal), finding.chart].append(finding)
    verdicts = reader.verdicts(since, FOREVER, limit=MOST_PARTS) if analytics.parts else []
    points = _newest_points(reader.chart_points(since, FOREVER, limit=_POINTS)) if analytics.charts else {}
    load = _load(reader, analytics, infos, findings, verdicts, since)
    signals = []
    for info in sorted(limited, key=lambda i: i.key.path):
        charts = [c for c in analytics.charts if any(fnmatchcase(info.key.short, glob) for glob in c.signals)]
        found = _values(reader, info, charts, verdicts, since)
        raised = [f for c in charts for f in of_signal[info.key, c.label]]
        signals.append(_signal(config, info, charts, found, _alarms(info, charts, raised, load), points))
    return {
        "time": time.time_ns(),
        "since": since,
        "signals": signals,
        "without_limits": sum(i.kind == "gauge" for i in infos) - sum(i.kind == "gauge" for i in limited),
        "load": load,
        "machines": _families(load),
        "shift": f"{span_ns(analytics.shift) / 3.6e12:.3g} h",
    }


def routes(reader: Reader, config: Callable[[], AgentConfig]) -> Sequence[BaseRoute]:
    """`GET /report/capability?since=NS`; one is made at a time. `config` gives that in force."""
    one = asyncio.Lock()

    async def answer(request: Request) -> Response:
        try:
            since = int(request.query_params.get("since", 0))
            async with one:
                found = await asyncio.to_thread(summary, reader, config(), since)
        except ValueError as e:
            return PlainTextResponse(str(e), 400)
        except StoreError as e:
            return PlainTextResponse(str(e), 503)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return [Route("/report/capability", answer)]


def _values(
    reader: Reader, info: SignalInfo, charts: Iterable[ChartConfig], verdicts: Iterable[Verdict], since: int
) -> Values:  # fmt: skip
    for chart in charts:
        name = f"{info.key.name}.{chart.charted}"
        if chart.charted in _IN_UNIT:
            found = sorted(
                (v.time, v.features[name]) for v in verdicts if v.place == info.key.place and name in v.features
            )
            if found:
                found = found[-MOST_VALUES:]
                times, values = np.array([t for t, _ in found], np.int64), np.array([v for _, v in found])
                return Values(times, values, f"{chart.charted} of a part", len(found) == MOST_VALUES)
    series = reader.telemetry(info.key, since, FOREVER, limit=MOST_VALUES)
    use = is_good(series.status) & np.isfinite(series.value)
    return Values(series.time[use], series.value[use], "reading", len(series.time) == MOST_VALUES)


def _signal(
    config: AgentConfig,
    info: SignalInfo,
    charts: Sequence[ChartConfig],
    found: Values,
    alarms: Alarms,
    points: dict[tuple[SignalKey, str], ChartPoint],
) -> dict[str, Any]:
    uncertainty = next(
        (r.uncertainty for r in reversed(config.rules) if r.uncertainty and fnmatchcase(info.key.short, r.match)), None
    )
    row: dict[str, Any] = {
        "signal": info.key.path, "machine": info.key.place.machine, "name": info.key.name, "unit": info.unit,
        "lsl": info.lsl, "usl": info.usl, "target": info.target, "uncertainty": uncertainty,
        "each": found.each, "n": len(found.value), "newest_only": found.cut,
        "findings": alarms.counts, "findings_words": alarms.words,
    }  # fmt: skip
    if uncertainty and info.lsl is not None and info.usl is not None and info.usl > info.lsl:
        row["uncertainty_of_tolerance"] = uncertainty / (info.usl - info.lsl)
    chart = next((c for c in charts if c.kind in XBAR_KINDS and c.subgroup > 1), None)
    group = chart.subgroup if chart is not None else 1
    try:
        judged = capability(
            found.value, Spec(info.lsl, info.usl, info.target), group=group if len(found.value) >= 2 * group else 1,
            unstable=alarms.unstable,
        )  # fmt: skip
    except ValueError as e:
        return row | {"not_stated": dict.fromkeys(("Cp", "Cpk", "Pp", "Ppk"), str(e)), "indices": {}}
    return row | _judged(judged) | _pictures(info, found, judged, charts, points)


def _alarms(
    info: SignalInfo, charts: Sequence[ChartConfig], raised: Sequence[Finding], load: Sequence[dict[str, Any]]
) -> Alarms:
    """More findings than the designed false alarms explain are a process that is not stable."""
    counts, words, unstable = Counter(f.chart for f in raised), [], ""
    designed = {row["chart"]: row for row in load if row["machine"] == info.key.place.path}
    for name in dict.fromkeys(c.label for c in charts):
        if not counts[name]:
            continue
        row = designed.get(name)
        told = f"{counts[name]} {'finding' if counts[name] == 1 else 'findings'} of chart {name}"
        if row is not None and row["designed_a_shift"] is not None and row["shifts"] > 0:
            expected = row["designed_a_shift"] * row["shifts"] / max(row["channels"], 1)
            told += f", where chance gives {expected:.2g}"
            if _chance(counts[name], expected) >= _UNLIKELY:
                words.append(told)
                continue
        newest = next(f for f in raised if f.chart == name)
        words.append(told)
        unstable = unstable or f"{told}; the newest: {newest.detail or newest.rule}"
    return Alarms({c.label: counts[c.label] for c in charts}, words, unstable)


def _judged(judged: Capability) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(judged)
    plain.pop("n")
    below, above = judged.beyond
    plain["below_lsl"], plain["above_usl"] = below, above
    del plain["beyond"]
    return plain


def _pictures(
    info: SignalInfo,
    found: Values,
    judged: Capability,
    charts: Sequence[ChartConfig],
    points: dict[tuple[SignalKey, str], ChartPoint],
) -> dict[str, Any]:
    counts, edges = np.histogram(found.value, _classes(found.value))
    curve: list[float] = []
    if judged.method == "normal" and judged.sigma_overall > 0:
        middle = (edges[1:] + edges[:-1]) / 2
        z = (middle - judged.mean) / judged.sigma_overall
        density = np.exp(-0.5 * z * z) / (judged.sigma_overall * math.sqrt(2 * math.pi))
        curve = (density * (edges[1] - edges[0]) * len(found.value)).tolist()
    at = _thinned(found.value)
    row: dict[str, Any] = {
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist(), "curve": curve},
        "run": {"time": found.time[at].tolist(), "value": found.value[at].tolist()},
    }
    for chart in charts:  # whose points are values of the signal itself: limits that belong into the same picture
        point = points.get((info.key, chart.label))
        per_part = found.each != "reading"
        same = chart.kind == "individuals" and (per_part or chart.per == "reading")
        if same and point is not None and point.ucl is not None and point.lcl is not None:
            row["limits"] = {
                "chart": chart.label, "version": point.limits_version, "center": point.center, "ucl": point.ucl,
                "lcl": point.lcl,
            }  # fmt: skip
            break
    return row


def _classes(values: Floats) -> int:
    """Classes of a histogram: twice the interquartile range by the cube root of n (Freedman & Diaconis), 5 to 60."""
    spread = float(np.ptp(values))
    q1, q3 = np.quantile(values, [0.25, 0.75])
    width = 2 * float(q3 - q1) / len(values) ** (1 / 3)
    return int(min(max(spread / width if width > 0 else 5, 5), 60))


def _thinned(values: Floats) -> NDArray[np.intp]:
    """Rows for a picture: all, or the lowest and the highest of each stretch."""
    if len(values) <= _SHOWN:
        return np.arange(len(values))
    rows: set[int] = set()
    for piece in np.array_split(np.arange(len(values)), _SHOWN // 2):
        rows |= {int(piece[np.argmin(values[piece])]), int(piece[np.argmax(values[piece])])}
    return np.array(sorted(rows), np.intp)


def _newest_points(points: Iterable[ChartPoint]) -> dict[tuple[SignalKey, str], ChartPoint]:
    return {(SignalKey(p.place, p.signal), p.chart): p for p in points if p.ucl is not None}


def _load(
    reader: Reader,
    analytics: AnalyticsConfig,
    infos: Sequence[SignalInfo],
    findings: Sequence[Finding],
    verdicts: Sequence[Verdict],
    since: int,
) -> list[dict[str, Any]]:
    """False alarms a shift by design, and findings, of every chart on every machine."""
    numbers = [info for info in infos if info.kind != "text"]
    readings = reader.counts(since, FOREVER)
    parts = Counter(v.place for v in verdicts)
    raised = Counter((f.place, f.chart) for f in findings)
    rows: list[dict[str, Any]] = []
    newest: dict[Place, int] = defaultdict(int)
    for key, series in reader.latest(since).items():
        newest[key.place] = max(newest[key.place], int(series.time[-1]))
    began = _began(reader, since, max(newest.values(), default=0))
    for place in sorted({info.key.place for info in numbers}):
        signals = [info.key for info in numbers if info.key.place == place]
        shifts = max(newest[place] - began, 0) / span_ns(analytics.shift)
        for load in machine_load(analytics, place.machine, [key.short for key in signals]):
            designed, share = load.a_shift, None
            each = load.each.split(",")[0]
            if designed is None and load.arl0 and shifts > 0 and each in ("part", "reading"):
                chart = next(c for c in analytics.charts if c.label == load.chart)
                on = [key for key in signals if any(fnmatchcase(key.short, glob) for glob in chart.signals)]
                values = parts[place] * load.channels if each == "part" else sum(readings.get(key, 0) for key in on)
                designed = values / max(chart.subgroup, 1) / load.arl0 / shifts
            found = raised[place, load.chart]
            if designed is not None and shifts > 0:
                share = _chance(found, designed * shifts)
            rows.append({
                "machine": place.path, "chart": load.chart, "channels": load.channels, "each": load.each,
                "arl0": load.arl0, "designed_a_shift": designed, "findings": found, "shifts": shifts,
                "findings_a_shift": found / shifts if shifts > 0 else None, "chance": share,
            })  # fmt: skip
    return rows


def _families(load: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of all charts of each machine together; without a design where one chart has none."""
    rows = []
    for machine in dict.fromkeys(row["machine"] for row in load):
        mine = [row for row in load if row["machine"] == machine]
        known = [row["designed_a_shift"] for row in mine if row["designed_a_shift"] is not None]
        found, shifts = sum(row["findings"] for row in mine), mine[0]["shifts"]
        designed = sum(known) if len(known) == len(mine) else None
        rows.append({
            "machine": machine, "charts": len(mine), "channels": sum(row["channels"] for row in mine),
            "designed_a_shift": designed, "findings": found, "shifts": shifts,
            "findings_a_shift": found / shifts if shifts > 0 else None,
            "chance": None if designed is None or shifts <= 0 else _chance(found, designed * shifts),
        })  # fmt: skip
    return rows


def _began(reader: Reader, since: int, last: int) -> int:
    """When readings begin, to a thousandth of the time: by halving, as a store counts but does not tell the first."""
    if since or not last:
        return since
    low, high = 0, last
    while high - low > max((last - low) // 1000, 10**9):
        middle = (low + high) // 2
        low, high = (low, middle) if any(reader.counts(0, middle).values()) else (middle, high)
    return low


def _chance(found: int, expected: float) -> float:
    """P(at least so many false alarms by chance), by the Poisson distribution."""
    term, below = math.exp(-expected), 0.0
    for k in range(found):
        below += term
        term *= expected / (k + 1)
    return max(1.0 - below, 0.0)
