"""One row of output for each row of a recording: alarm, statistic, limit, contributors."""

import csv
import math
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from analytics.seen import SINCE_THE_ONE_BEFORE, Seen

Floats = NDArray[np.float64]

HEADER = ("time", "alarm", "statistic", "limit", "contributors")


class Rows:
    """Collects what charts saw and gives it to the rows.

    Args:
        chart: whose statistic, limit and contributors the rows get. The alarm is any chart's.
    """

    def __init__(self, chart: str) -> None:
        self._chart = chart
        self._time: list[NDArray[np.int64]] = []
        self._written: list[str] = []
        self._seen: list[Seen] = []
        self.judged: dict[str, int] = {}
        self.alarms: dict[str, int] = {}

    def add_rows(self, time: NDArray[np.int64], written: list[str]) -> None:
        """Rows of the file, in order; times that are unknown lie before everything."""
        self._time.append(time)
        self._written += written

    def watch(self, seen: Seen) -> None:
        """What a chart saw."""
        known = np.isfinite(seen.ucl)
        self.judged[seen.chart] = self.judged.get(seen.chart, 0) + int(np.count_nonzero(known))
        self.alarms[seen.chart] = self.alarms.get(seen.chart, 0) + int(np.count_nonzero(seen.violation))
        self._seen.append(seen)

    def write(self, file: TextIO) -> int:
        """Write the rows as CSV; returns the number of rows with an alarm."""
        times = np.concatenate(self._time) if self._time else np.zeros(0, np.int64)
        order = np.argsort(times, kind="stable")
        alarm = np.zeros(len(times), bool)
        chosen = np.full((len(times), 2), -1, np.intp)  # the judgement nearest to its limit, of the chart that is shown
        for number, seen in enumerate(self._by_chart()):
            row, entry = _rows_of(seen, times, order)
            alarm[row[seen.violation[entry] > 0]] = True
            if seen.chart == self._chart:
                nearest = np.lexsort((-entry, _nearness(seen)[entry], row))  # of each row, the last one counts
                chosen[row[nearest], 0], chosen[row[nearest], 1] = number, entry[nearest]
        self._write(file, alarm, chosen)
        return int(np.count_nonzero(alarm))

    def _by_chart(self) -> list[Seen]:
        """Everything seen, a chart at a time."""
        charts = dict.fromkeys(s.chart for s in self._seen)
        self._seen = [_joined([s for s in self._seen if s.chart == chart]) for chart in charts]
        return self._seen

    def _write(self, file: TextIO, alarm: NDArray[np.bool_], chosen: NDArray[np.intp]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for time, alarmed, (number, i) in zip(self._written, alarm.tolist(), chosen.tolist(), strict=True):
            if number < 0:
                writer.writerow((time, int(alarmed), "", "", ""))
                continue
            seen = self._seen[number]
            statistic, lcl, ucl = float(seen.statistic[i]), float(seen.lcl[i]), float(seen.ucl[i])
            limit = lcl if statistic < 0.5 * (lcl + ucl) else ucl
            told = ("" if math.isnan(x) else repr(x) for x in (statistic, limit))
            writer.writerow((time, int(alarmed), *told, "" if math.isnan(ucl) else seen.contributors[i]))


def _joined(seen: list[Seen]) -> Seen:
    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(s, name) for s in seen])

    return Seen(
        chart=seen[0].chart,
        first=column("first"),
        last=column("last"),
        statistic=column("statistic"),
        lcl=column("lcl"),
        ucl=column("ucl"),
        violation=column("violation"),
        contributors=[who for s in seen for who in s.contributors],
    )


def _rows_of(
    seen: Seen, times: NDArray[np.int64], order: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which row, and which judgement, for every row that a judgement stands for."""
    first = np.searchsorted(times, _starts(seen), sorter=order)
    count = np.maximum(np.searchsorted(times, seen.last, side="right", sorter=order) - first, 0)
    entry = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
    return order[first[entry] + within], entry


def _starts(seen: Seen) -> NDArray[np.int64]:
    """First event times; that of a part is just behind the one before of its signal."""
    first = seen.first.copy()
    before: dict[str, int] = {}
    for i in np.flatnonzero(seen.first == SINCE_THE_ONE_BEFORE).tolist():
        who = seen.contributors[i]
        first[i] = before.get(who, int(seen.last[i]) - 1) + 1
        before[who] = int(seen.last[i])
    return first


def _nearness(seen: Seen) -> Floats:
    """Distance from the middle of the limits, 1 at a limit and above 2 where a rule is broken; -1 while learning."""
    lcl = np.where(np.isnan(seen.lcl), -seen.ucl, seen.lcl)  # one-sided
    half = 0.5 * (seen.ucl - lcl)
    near = np.abs(seen.statistic - 0.5 * (seen.ucl + lcl)) / np.maximum(half, 1e-300)
    return np.where(np.isnan(near), -1.0, near + 2.0 * (seen.violation > 0))
