"""Two sensors of one quantity: their difference, minute by minute, says when one of them drifts.

The means over a minute of both are subtracted; the first `LEARN` differences give mean, spread and lag-1
correlation, and an EWMA (S. W. Roberts, Technometrics 1, 1959) of those that follow is held against `WIDTH` of its
standard deviations, widened for the correlation: var = s² λ/(2-λ) (1 + φ(1-λ)) / (1 - φ(1-λ)).
"""

import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from analytics.health import table as col
from analytics.health.course import Course, Rows
from analytics.health.table import WELL_SICK, SensorTable
from fieldlab.model import SignalKey

WINDOW = 60 * 10**9
LEARN = 30
LAMBDA, WIDTH = 0.1, 6.0
MOST_WAITING = 600  # minutes that one twin may be behind the other


class _Sensor(msgspec.Struct):
    """Minutes of one sensor."""

    number: int = 0
    count: int = 0
    total: float = 0.0
    means: dict[int, float] = {}  # of minutes that the other has not ended yet
    known: dict[int, int] = {}  # when each of those was known to be over: event time of the next reading


class _Pair(msgspec.Struct):
    """What is known of a difference."""

    learned: list[float] = []
    mean: float = 0.0
    limit: float = 0.0
    average: float = 0.0


class Twins:
    """All pairs of sensors."""

    def __init__(self) -> None:
        self._twin: dict[int, int] = {}  # slot → slot of its twin
        self._sensors: dict[int, dict[int, _Sensor]] = {}  # slot → the slot that waits for its minutes → minutes
        self._pairs: dict[int, _Pair] = {}

    def wire(self, slot: int, table: SensorTable) -> None:
        """Join a slot with its twin, and with those whose twin it is."""
        for one in range(len(table.keys)):
            twin = table.rules[one].twin
            found = None if not twin else self._find(table, table.keys[one], twin)
            if found is None or found == one:
                self._twin.pop(one, None)
            elif slot in (one, found):
                self._twin[one] = found
                self._pairs.setdefault(one, _Pair())
                for each in (one, found):
                    self._sensors.setdefault(each, {}).setdefault(one, _Sensor())

    @staticmethod
    def _find(table: SensorTable, key: SignalKey, twin: str) -> int | None:
        same = [s for s, k in enumerate(table.keys) if k.short == twin]
        line = (key.place.site, key.place.area, key.place.line)
        near = [s for s in same if (p := table.keys[s].place) and (p.site, p.area, p.line) == line]
        return next(iter(near or same), None)

    def feed(self, rows: Rows, course: Course) -> None:
        """Take readings; raise and clear what their minutes show."""
        if not self._twin:
            return
        groups = rows.groups
        for g, slot in enumerate(groups.which.tolist()):
            if slot not in self._sensors:
                continue
            a = int(groups.first[g])
            part = slice(a, a + int(groups.size[g]))
            sick = WELL_SICK[int(course.table.whole[slot, col.SICK])] not in ("", "drifting")
            use = ~rows.aside[part] & ~rows.doubt[part] & (~rows.sick[part] | np.bool_(not sick))
            number, value, which = rows.time[part] // WINDOW, rows.value[part], self._sensors[slot]
            for one, sensor in which.items():
                self._sum(one, sensor, number, value, use, rows.time[part], course, rows)

    def _sum(
        self, one: int, sensor: _Sensor, number: Any, value: Any, use: Any, time: Any, course: Course, rows: Rows
    ) -> None:
        cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
        for a, b in pairwise(cuts):
            if int(number[a]) != sensor.number:
                if sensor.count:
                    sensor.means[sensor.number] = sensor.total / sensor.count
                    sensor.known[sensor.number] = int(time[a])
                    while len(sensor.means) > MOST_WAITING:
                        sensor.known.pop(next(iter(sensor.means)))
                        sensor.means.pop(next(iter(sensor.means)))
                sensor.number, sensor.count, sensor.total = int(number[a]), 0, 0.0
                self._compare(one, course, rows)
            for x in value[a:b][use[a:b]].tolist():  # one after the other: the same sum however batches are cut
                sensor.total += x
                sensor.count += 1

    def _compare(self, one: int, course: Course, rows: Rows) -> None:
        """Take every minute that both have ended."""
        pair, twin = self._pairs[one], self._twin.get(one)
        if twin is None:
            return
        mine, other = self._sensors[one][one], self._sensors[twin][one]
        for minute in sorted(mine.means.keys() & other.means.keys()):
            before = int(course.table.whole[one, col.SICK])
            self._judge(one, pair, minute, mine.means[minute] - other.means[minute], course)
            if course.table.whole[one, col.SICK] != before:
                groups = rows.groups
                later = (groups.slot == one) & (rows.time > max(mine.known[minute], other.known[minute]))
                rows.sick[later & ~rows.aside] = before == 0
        done = min(mine.number, other.number)
        for sensor in (mine, other):
            sensor.means = {m: x for m, x in sensor.means.items() if m >= done}
            sensor.known = {m: t for m, t in sensor.known.items() if m >= done}

    def _judge(self, one: int, pair: _Pair, minute: int, away: float, course: Course) -> None:
        if len(pair.learned) < LEARN:
            pair.learned.append(away)
            if len(pair.learned) == LEARN:
                self._learn(one, pair, course.table)
            return
        pair.average += LAMBDA * (away - pair.mean - pair.average)
        time = (minute + 1) * WINDOW
        sick = WELL_SICK[int(course.table.whole[one, col.SICK])]
        if not sick and abs(pair.average) > pair.limit:
            twin = course.table.rules[one].twin
            course.raise_(one, "drifting", time, pair.average, pair.limit, (
                f"it has moved by {{statistic}} against its twin {twin} since that was learned (limit"
                f" {pair.limit:.3g}): one of the two drifts, compare both with a reference"
            ))  # fmt: skip
        elif sick == "drifting" and abs(pair.average) < pair.limit / 2:
            course.clear(one, time, "agrees with its twin again")

    @staticmethod
    def _learn(one: int, pair: _Pair, table: SensorTable) -> None:
        x = np.array(pair.learned)
        pair.mean = float(x.mean())
        x -= pair.mean
        spread = float(np.sqrt(np.sum(x * x) / (len(x) - 1)))
        phi = float(np.clip(np.sum(x[1:] * x[:-1]) / max(float(np.sum(x * x)), 1e-300), 0.0, 0.95)) * (1 - LAMBDA)
        wide = math.sqrt(LAMBDA / (2 - LAMBDA) * (1 + phi) / (1 - phi))
        told = table.rules[one].twin_tolerance
        pair.limit = told if told is not None else WIDTH * spread * wide

    def save(self) -> list[Any]:
        """State as plain values."""
        return [
            list(self._twin.items()),
            [(s, [(o, msgspec.to_builtins(x)) for o, x in found.items()]) for s, found in self._sensors.items()],
            [(s, msgspec.to_builtins(p)) for s, p in self._pairs.items()],
        ]

    def load(self, saved: list[Any]) -> None:
        """Take the state of `save`."""
        twins, sensors, pairs = saved
        self._twin = {int(a): int(b) for a, b in twins}
        self._sensors = {int(s): {int(o): msgspec.convert(x, _Sensor, strict=False) for o, x in f} for s, f in sensors}
        self._pairs = {int(s): msgspec.convert(p, _Pair) for s, p in pairs}
