"""Overall equipment effectiveness from a machine's states and its parts: ISO 22400-2:2014.

Availability = actual production time / planned busy time. Effectiveness (performance) = planned run time a part x parts
made / actual production time. Quality = good parts / parts made. OEE is their product. MTBF is the production time to a
failure, MTTR the time down to a failure.

Time of which nothing is known, and states whose meaning is not, are "no data": never production, and no planned busy
time either; what the OEE would be, had the machine stood or produced all that time, is given beside it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

Category = Literal["running", "idle", "down", "break", "no data"]
Span = tuple[int, int]  # [start, end), ns
NO_DATA: Category = "no data"


class Stop(NamedTuple):
    """A reason for standing: what it is called, of which category, how often, and for how long, s."""

    reason: str
    category: Category
    times: int
    seconds: float


class Oee(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine did in its planned time. Times are in seconds; a ratio that cannot be said is None.

    Attributes:
        planned: planned time in which something is known, without breaks: the planned busy time.
        running: actual production time.
        idle: planned, ready, and not producing.
        down: failed.
        breaks: states that are no planned busy time.
        no_data: planned time of which nothing is known.
        unknown: state that no category names → its time, s; a part of `no_data`.
        availability: running / planned.
        performance: cycle x parts / running.
        quality: good / parts.
        oee: the product of these three.
        least: the OEE, had the machine stood while there was no data.
        most: the OEE, had it produced good parts at its ideal pace while there was no data.
        parts: parts made.
        good: good ones.
        cycle: planned run time a part, s.
        failures: times that it went down.
        mtbf: running / failures.
        mttr: down / failures.
        stops: reasons for standing, the longest first.
    """

    planned: float
    running: float
    idle: float
    down: float
    breaks: float
    no_data: float
    unknown: dict[str, float]
    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    least: float | None
    most: float | None
    parts: int
    good: int
    cycle: float | None
    failures: int
    mtbf: float | None
    mttr: float | None
    stops: list[Stop]


def oee(
    states: Sequence[tuple[int, str | None]],
    planned: Sequence[Span],
    categories: Mapping[str, Category],
    *,
    parts: int,
    good: int,
    cycle: float | None,
    reasons: Sequence[tuple[int, str]] = (),
) -> Oee:
    """Judge a machine.

    Args:
        states: (time, ns; what the machine's state is from then on, None for no data), ascending. Before the first
            there is no data.
        planned: planned time, ascending, without overlap.
        categories: state, in small letters → what it means.
        parts: parts made in the planned time.
        good: good ones of them.
        cycle: planned run time a part, s; None if it is not known.
        reasons: (time, ns; reason of standing from then on), ascending; an empty one is none.

    >>> S = 10**9
    >>> states = [(0, "running"), (360 * S, "down"), (420 * S, "running")]
    >>> found = oee(states, [(0, 480 * S)], {"running": "running", "down": "down"}, parts=80, good=76, cycle=4.2)
    >>> found.availability, found.performance, found.quality, round(found.oee, 4)
    (0.875, 0.8, 0.95, 0.665)
    """
    spent: dict[Category, int] = dict.fromkeys(("running", "idle", "down", "break", "no data"), 0)
    unknown: dict[str, int] = {}
    stops: dict[tuple[str, Category], list[int]] = {}
    failures = 0
    was: Category = NO_DATA
    told: tuple[str, Category] | None = None
    for start, end, state in _pieces(states, planned):
        category: Category = NO_DATA if state is None else categories.get(state.strip().lower(), NO_DATA)
        spent[category] += end - start
        if state is not None and category == NO_DATA:
            unknown[state] = unknown.get(state, 0) + end - start
        failures += category == "down" and was != "down"
        was = category
        if category in ("running", NO_DATA):
            told = None
            continue
        for a, b, reason in _cut(start, end, reasons):
            found = (reason or str(state), category)
            row = stops.setdefault(found, [0, 0])
            row[0] += found != told
            row[1] += b - a
            told = found
    seconds = {category: ns / 1e9 for category, ns in spent.items()}
    busy = seconds["running"] + seconds["idle"] + seconds["down"]
    running, missing = seconds["running"], seconds["no data"]
    availability = running / busy if busy > 0 else None
    performance = cycle * parts / running if cycle is not None and running > 0 else None
    quality = good / parts if parts > 0 else None
    whole = _product(availability, performance, quality)
    bounds: tuple[float | None, float | None] = (None, None)
    if whole is not None and cycle is not None and busy + missing > 0:
        bounds = cycle * good / (busy + missing), (cycle * good + missing) / (busy + missing)
    return Oee(
        planned=busy, running=running, idle=seconds["idle"], down=seconds["down"], breaks=seconds["break"],
        no_data=missing, unknown={s: ns / 1e9 for s, ns in unknown.items()}, availability=availability,
        performance=performance, quality=quality, oee=whole, least=bounds[0], most=bounds[1], parts=parts, good=good,
        cycle=cycle, failures=failures, mtbf=running / failures if failures else None,
        mttr=seconds["down"] / failures if failures else None,
        stops=sorted(
            (Stop(reason, category, n, ns / 1e9) for (reason, category), (n, ns) in stops.items()),
            key=lambda stop: (-stop.seconds, stop.reason),
        ),
    )  # fmt: skip


def inside(time: int, spans: Sequence[Span]) -> bool:
    """Whether a moment is in one of the spans."""
    return any(start <= time < end for start, end in spans)


def _pieces(states: Sequence[tuple[int, str | None]], planned: Sequence[Span]) -> list[tuple[int, int, str | None]]:
    """(start, end, state) of everything planned."""
    found: list[tuple[int, int, str | None]] = []
    at = 0
    for start, end in planned:
        while at < len(states) and states[at][0] <= start:
            at += 1
        begin, state, i = start, states[at - 1][1] if at else None, at
        while i < len(states) and states[i][0] < end:
            if states[i][0] > begin:
                found.append((begin, states[i][0], state))
            begin, state = states[i]
            i += 1
        if end > begin:
            found.append((begin, end, state))
    return found


def _cut(start: int, end: int, reasons: Sequence[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """A stop, by the reasons that were said of it: one that comes while it lasts is that of all before it too."""
    at = bisect_right(reasons, start, key=lambda said: said[0])
    stop = bisect_left(reasons, end, key=lambda said: said[0])
    before = reasons[at - 1][1] if at else ""
    during = [(time, reason) for time, reason in reasons[at:stop] if reason]
    if not during:
        return [(start, end, before)]
    if before:
        during.insert(0, (start, before))
    edges = [start, *(time for time, _ in during[1:]), end]
    return [(a, b, reason) for a, b, (_, reason) in zip(edges, edges[1:], during, strict=False)]


def _product(*factors: float | None) -> float | None:
    whole = 1.0
    for factor in factors:
        if factor is None:
            return None
        whole *= factor
    return whole
