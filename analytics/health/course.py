"""The course of a sensor's illness, reading by reading; only for signals on which something happens."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.health import table as col
from analytics.health.config import CHECKS
from analytics.health.reference import JUMP
from analytics.health.runs import Groups
from analytics.health.table import JUDGED, NEVER, WELL_SICK, SensorTable
from analytics.runner import Outlet
from fieldlab.model import Finding
from fieldlab.model.finding import finding_id

HEALTH = "_health"  # the chart of every finding about a sensor
WELL_AFTER = {"stuck": 30, "flat": 30, "saturated": 30, "spiking": 200, "silent": 3}  # readings without a complaint
SPIKES, SPIKES_WITHIN = 3, 200  # lone jumps among as many readings
AT_END = 5  # readings in a row at the end of a sensor's range

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Rows(msgspec.Struct):
    """Readings of checked signals, sorted by slot, and what was seen of each, (n,).

    Attributes:
        groups: which rows are of which slot.
        order: their rows in the batch.
        value: NaN where a status is Bad.
        time: event time, ns.
        since: of the signal's reading before; 0 for none.
        step: change since then.
        aside: not to be judged: its machine stands, or its status is not Good.
        judged: whether the signal's behaviour was learned before.
        equal: equal readings in a row.
        still: readings in a row that hardly changed.
        out: readings in a row at an end of the range.
        doubt: kept from the charts.
        jump: a change larger than ever.
        late: the gap since the reading before was too long.
        coarse: see `HealthMonitor`.
        sick: readings of a sick sensor.
    """

    groups: Groups
    order: NDArray[np.intp]
    value: Floats
    time: Ints
    since: Ints
    step: Floats
    aside: Flags
    judged: Flags
    equal: Ints
    still: Ints
    out: Ints
    doubt: Flags
    jump: Flags
    late: Flags
    coarse: dict[int, bool]
    sick: Flags

    @classmethod
    def nothing(cls) -> "Rows":
        """No readings."""
        f, i, b, at = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.intp)
        return cls(Groups(at), at, f, i, i, f, b, b, i, i, i, b, b, b, {}, b)


class Course:
    """Raises, keeps and clears findings about sensors."""

    def __init__(self, table: SensorTable, outlet: Outlet) -> None:
        self.table, self._out = table, outlet
        self._rows = Rows.nothing()

    def run(self, rows: Rows, last: dict[int, int], resting: dict[int, tuple[Ints, list[bool]]]) -> None:
        """Go through readings; sets `doubt` and `sick` of theirs.

        Args:
            rows: the readings.
            last: machine → event time of its newest reading of any signal.
            resting: machine → when its standing changed, and whether it stood before the first and from each on.
        """
        self._rows = rows
        groups, whole = rows.groups, self.table.whole
        slot = groups.slot
        fixed = rows.judged | (whole[slot, col.FIXED] & 1 > 0)
        event = rows.jump | rows.late | (rows.out >= AT_END) | (fixed & (rows.equal >= whole[slot, col.EQUAL_SICK]))
        event |= rows.judged & (rows.still >= whole[slot, col.STILL_SICK])
        event[list(rows.coarse)] = True
        busy = np.bincount(groups.number[event], minlength=len(groups.which)) > 0
        busy |= (whole[groups.which, col.SICK] > 0) | (whole[groups.which, col.JUMPED] > 0)
        for g in np.flatnonzero(busy).tolist():
            self._follow(int(groups.which[g]), int(groups.first[g]), int(groups.first[g] + groups.size[g]), resting)
        self._listen(last, resting)
        self._rows = Rows.nothing()

    def _follow(self, slot: int, start: int, stop: int, resting: dict[int, tuple[Ints, list[bool]]]) -> None:
        """One signal's readings, in order."""
        rows, whole, real = self._rows, self.table.whole[slot], self.table.real[slot]
        for i in range(start, stop):
            if rows.late[i] and not whole[col.SICK] and not whole[col.PASSED]:
                self._silent(slot, int(rows.since[i]), resting)
            whole[col.PASSED] = 0
            if rows.aside[i]:
                whole[col.JUMPED] = 0
                continue
            x = float(rows.value[i])
            jump = bool(rows.jump[i]) and rows.step[i] > real[col.JUMP_ABOVE]
            if whole[col.SICK]:
                rows.sick[i] = True
                self._recover(slot, i, jump=jump)
                real[col.TRUSTED] = x
                continue
            if rows.coarse.get(i):
                self._raise_coarse(slot, i)
            elif whole[col.JUMPED]:
                self._after_jump(slot, i, x)
            elif jump:
                whole[col.JUMPED] = 1
                rows.doubt[i] = True
                before = rows.value[i - 1] if i > start else real[col.LAST]
                real[col.TRUSTED] = before
            if not whole[col.SICK]:
                self._complain(slot, i)
            if whole[col.SICK]:
                rows.sick[i] = True

    def _after_jump(self, slot: int, i: int, x: float) -> None:
        """The reading behind a jump says what it was: a lone spike, or another level."""
        whole, real = self.table.whole[slot], self.table.real[slot]
        if self._rows.step[i] == 0:  # it repeats the jump: no level says exactly the same twice
            self._rows.doubt[i] = True
            return
        whole[col.JUMPED] = 0
        away = float(real[col.TRUSTED])
        if abs(x - away) > real[col.JUMP_ABOVE]:
            if not whole[col.FIXED] & 2:
                real[col.LARGEST] = abs(x - away)
                real[col.JUMP_ABOVE] = JUMP * real[col.LARGEST]
            return
        time, first = int(self._rows.time[i]), int(whole[col.SPIKE1])
        whole[col.SPIKE1], whole[col.SPIKE2] = whole[col.SPIKE2], time
        reference = self.table.references[slot]
        gap = reference.gap if reference is not None else 1.0
        if first > -NEVER and time - first <= SPIKES_WITHIN * gap * 1e9:
            size = float(self._rows.step[i])
            self.raise_(slot, "spiking", time, size, float(real[col.JUMP_ABOVE]), (
                f"{SPIKES} readings jumped by {{statistic}} and came back with the next; the largest change before was"
                f" {real[col.LARGEST]:.4g}: look for a loose wire, or for something that disturbs it"
            ))  # fmt: skip

    def _complain(self, slot: int, i: int) -> None:
        """Raise what a reading shows, if it does."""
        rows, whole, real = self._rows, self.table.whole[slot], self.table.real[slot]
        time, x = int(rows.time[i]), float(rows.value[i])
        if rows.out[i] >= AT_END:
            self.raise_(slot, "saturated", time, x, x, (
                f"{AT_END} readings in a row are {{statistic}}, where its range ends: check it"
            ))  # fmt: skip
            return
        fixed = bool(whole[col.FIXED] & 1)
        bound = int(whole[col.EQUAL_SICK])
        if (rows.judged[i] or fixed) and rows.equal[i] >= bound:
            doubled = rows.equal[i] / bound
            if not fixed and math.log2(doubled) % 1:  # looked at again at twice the length, and so on
                return
            if not fixed and self._all_rest(slot, time, col.EQUAL, col.EQUAL_DOUBT, rows.equal):
                return
            many = int(rows.equal[i]) + 1
            beyond = not real[col.LOW] <= x <= real[col.HIGH]
            if beyond and whole[col.MAY] >> CHECKS.index("saturated") & 1:
                self.raise_(slot, "saturated", time, x, x, (
                    f"{many} readings in a row are {{statistic}}, beyond everything before: it seems to be at its end"
                ))  # fmt: skip
            else:
                self.raise_(slot, "stuck", time, x, x, (
                    f"{many} readings in a row are exactly {{statistic}}, which used to move: check the sensor,"
                    " its wire and its address"
                ))  # fmt: skip
        elif rows.judged[i] and rows.still[i] >= whole[col.STILL_SICK]:
            doubled = rows.still[i] / int(whole[col.STILL_SICK])
            if math.log2(doubled) % 1 or self._all_rest(slot, time, col.STILLS, col.STILL_DOUBT, rows.still):
                return
            step = float(rows.step[i])
            self.raise_(slot, "flat", time, step, float(real[col.STILL_BELOW]), (
                f"{int(rows.still[i]) + 1} readings in a row changed by less than a tenth of the usual"
                f" {real[col.TYPICAL]:.3g}: it hardly follows the quantity any more; check the sensor"
            ))  # fmt: skip

    def _raise_coarse(self, slot: int, i: int) -> None:
        if self._all_rest(slot, int(self._rows.time[i]), col.EQUAL, col.EQUAL_DOUBT, self._rows.equal):
            return
        typical = float(self.table.real[slot, col.TYPICAL])
        step = float(self._rows.step[i])
        self.raise_(slot, "quantised", int(self._rows.time[i]), step, typical, (
            f"it moves in coarse steps only, where it used to change by {typical:.3g} and with every reading: look"
            " for a lost digit, a deadband or a range that is set too wide"
        ))  # fmt: skip

    def _recover(self, slot: int, i: int, *, jump: bool) -> None:
        """Count readings without a complaint; enough of them, and the sensor is well."""
        rows, whole = self._rows, self.table.whole[slot]
        rule = WELL_SICK[int(whole[col.SICK])]
        time = int(rows.time[i])
        if rule == "quantised":
            if rows.coarse.get(i) is False:
                self.clear(slot, time, "its steps are fine again")
        elif rule in WELL_AFTER:
            rests = rows.equal[i] >= whole[col.EQUAL_DOUBT] or rows.still[i] >= whole[col.STILL_DOUBT]
            whole[col.WELL] = 0 if rests or jump or rows.out[i] else whole[col.WELL] + 1
            if whole[col.WELL] >= WELL_AFTER[rule]:
                self.clear(slot, time, f"well for {WELL_AFTER[rule]} readings")

    # --- silence ---

    def _listen(self, last: dict[int, int], resting: dict[int, tuple[Ints, list[bool]]]) -> None:
        """Find signals without a reading since too long, while others of their machine go on."""
        table, n = self.table, len(self.table.keys)
        now = np.zeros(max(last, default=0) + 1, np.int64)
        for m, time in last.items():
            now[m] = time
        newest = table.whole[:n, col.TIME].copy()
        newest[self._rows.groups.which] = self._rows.time[self._rows.groups.last]
        aside = table.whole[:n, col.STOOD] > 0
        aside[self._rows.groups.which] = self._rows.aside[self._rows.groups.last]
        machine = table.whole[:n, col.MACHINE]
        known = (machine < len(now)) & (newest > 0) & ~aside
        known &= (table.whole[:n, col.SICK] == 0) & (table.whole[:n, col.PASSED] == 0)
        known &= (table.whole[:n, col.STAGE] == JUDGED) | (table.whole[:n, col.SILENT] < NEVER)
        wait = np.where(known, now[np.minimum(machine, len(now) - 1)] - newest, 0)
        for slot in np.flatnonzero(known & (wait > table.whole[:n, col.SILENT])).tolist():
            self._silent(slot, int(newest[slot]), resting)

    def _silent(self, slot: int, since: int, resting: dict[int, tuple[Ints, list[bool]]]) -> None:
        whole = self.table.whole[slot]
        limit = int(whole[col.SILENT])
        time = since + limit
        whole[col.PASSED] = 1
        stood = resting.get(int(whole[col.MACHINE]))
        if stood is not None and stood[1][int(np.searchsorted(stood[0], time, side="right"))]:
            return
        if not self.table.rules[slot].silent and self._most_silent(slot, time):
            return
        self.raise_(slot, "silent", time, limit / 1e9, limit / 1e9, (
            f"no reading for {limit / 1e9:.3g} s, while its machine goes on: check the sensor and how it is connected"
        ))  # fmt: skip

    def _most_silent(self, slot: int, time: int) -> bool:
        """Whether half of the machine's other regular signals, or all, are silent too; or there are none to compare."""

        def silent(other: int) -> bool:
            bound = int(self.table.whole[other, col.SILENT])
            if bound >= NEVER:
                return False
            return time - self._at(other, time, self._rows.time, int(self.table.whole[other, col.TIME])) > bound // 2

        others = [s for s in self._others(slot) if self.table.whole[s, col.SILENT] < NEVER]
        return 2 * sum(map(silent, others)) >= len(others)

    def _all_rest(self, slot: int, time: int, run: int, doubt: int, runs: Ints) -> bool:
        """Whether half of the machine's other lively signals, or more, rest too: then the machine stands."""

        def rests(other: int) -> bool:
            whole = self.table.whole[other]
            return self._at(other, time, runs, int(whole[run])) >= int(whole[doubt])

        others = [s for s in self._others(slot) if self.table.whole[s, col.STAGE] == JUDGED]
        return bool(others) and 2 * sum(map(rests, others)) >= len(others)

    def _others(self, slot: int) -> list[int]:
        machine = self.table.whole[: len(self.table.keys), col.MACHINE]
        return [s for s in np.flatnonzero(machine == machine[slot]).tolist() if s != slot]

    def _at(self, slot: int, time: int, column: Ints, before: int) -> int:
        """What a column says of a slot at a time, `before` if these rows say nothing up to then."""
        groups = self._rows.groups
        g = int(np.searchsorted(groups.which, slot))
        if g == len(groups.which) or groups.which[g] != slot:
            return before
        a, b = int(groups.first[g]), int(groups.first[g] + groups.size[g])
        n = int(np.searchsorted(self._rows.time[a:b], time, side="right"))
        return int(column[a + n - 1]) if n else before

    # --- findings ---

    def raise_(self, slot: int, rule: str, time: int, statistic: float, limit: float, words: str) -> None:
        """A sensor is sick from now on."""
        table = self.table
        if not table.whole[slot, col.MAY] >> CHECKS.index(rule) & 1:
            return
        key, info = table.keys[slot], self._out.info(table.keys[slot])
        table.whole[slot, col.SICK], table.whole[slot, col.WELL] = 1 + CHECKS.index(rule), 0
        told = words.format(statistic=f"{statistic:.6g} {info.unit}".rstrip())
        finding = Finding(
            time=time, place=key.place, signal=key.name, chart=HEALTH, rule=rule,
            id=finding_id(key.place, key.name, HEALTH, rule, time, 0), severity="warning",
            statistic=statistic, limit=limit, part=self._out.part_at(key, time),
            detail=f"sensor {key.name}: {told}. Charts on it rest until it is well",
        )  # fmt: skip
        self._out.emit(key, time, self._out.book.raise_(finding, remember=False))

    def clear(self, slot: int, time: int, why: str) -> None:
        """A sensor is well."""
        key = self.table.keys[slot]
        self.table.whole[slot, col.SICK] = 0
        row = self._out.book.clear((key.place.path, key.name, HEALTH), time, why)
        if row is not None:
            self._out.emit(key, time, row)
