"""Checks sensors, all signals at once: doubtful readings are kept from the charts, sick sensors are findings.

The finding has the chart `_health` and the check as its rule, and it is a warning: it judges no part. While a sensor
is sick its readings count as Uncertain, so that every chart on it rests, and a part that depends on it is suspect. A
reading in doubt (a few equal in a row, a jump that may be a spike, the end of a range) is kept from the charts too.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.health import table as col
from analytics.health.config import CHECKS, HealthConfig
from analytics.health.course import HEALTH, Course, Rows
from analytics.health.reference import learn
from analytics.health.runs import Groups
from analytics.health.table import DULL, JUDGED, SensorTable
from analytics.health.twins import Twins
from analytics.parts import text_at
from analytics.runner import Outlet
from fieldlab.model import Batch, SignalKey
from fieldlab.model.status import NOT_ACCURATE, is_good

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 128  # readings by which the steps of a signal are looked at
REPEATS = 0.1  # share of a block that repeats, of a quantised signal
SMALLEST_STEP = 0.2  # of the typical change: of a quantised signal no change is smaller
SEVERAL = 5  # readings to a part, from which a jump between two of them is none of the part's

__all__ = ["HEALTH", "HealthMonitor"]


class HealthMonitor:
    """Checks the sensors of all machines."""

    def __init__(self, config: HealthConfig, outlet: Outlet) -> None:
        self.config = config
        self._out = outlet
        self.table = SensorTable()
        self._twins = Twins()
        self._course = Course(self.table, outlet)
        self._slot_of = np.full(0, -1, np.intp)  # signal index → slot
        self._states: dict[int, int] = {}  # machine → index of its signal `state`
        self._state_key: dict[int, SignalKey] = {}
        self._standing: dict[int, bool] = {}
        self._parts: dict[int, int] = {}  # machine → parts started before these readings
        self.doubted = 0
        self.sick = 0

    # --- wiring ---

    def unwire(self) -> None:
        """Forget which signal is checked; what was learned stays."""
        self._slot_of = np.full(0, -1, np.intp)
        self._states = {}

    def wire(self, index: int, key: SignalKey, machine: int, *, number: bool, checked: bool) -> bool:
        """Take note of a signal. Returns whether it is checked.

        Args:
            index: its index.
            key: which.
            machine: number of its machine.
            number: whether it is a quantity, and not a text, a state or a counter.
            checked: whether something is judged by it.
        """
        if index >= len(self._slot_of):
            bigger = np.full(max(index + 1, 2 * len(self._slot_of)), -1, np.intp)
            bigger[: len(self._slot_of)] = self._slot_of
            self._slot_of = bigger
        if not self.config.on:
            return False
        if key.name == "state":
            self._states[machine], self._state_key[machine] = index, key
            return True
        if not number or not (checked or self.config.names(key.short)):
            return False
        slot = self._slot_of[index] = self.table.add(key, machine, self.config)
        self._twins.wire(int(slot), self.table)
        return True

    def configure(self, config: HealthConfig, time: int) -> None:
        """Check by another configuration from now on."""
        self.config = config
        for slot, key in enumerate(self.table.keys):
            sick = int(self.table.whole[slot, col.SICK])
            rule = config.sensor(key.short)
            if sick and not (config.on and (rule.health is None or CHECKS[sick - 1] in rule.health)):
                self._course.clear(slot, time, "it is not checked any more")

    # --- checking ---

    def judge(self, batch: Batch, machine: NDArray[np.int32], starts: dict[int, Ints]) -> Batch:
        """The readings as charts may see them: without those in doubt, Uncertain where a sensor is sick.

        Args:
            batch: readings by machine, then time.
            machine: of each reading, (n,).
            starts: machine → event times at which its parts start in these readings.
        """
        if not self.table.keys or not self.config.on:
            self._pass(starts)
            return batch
        slots = self._slot_of[np.minimum(batch.signal, len(self._slot_of) - 1)]
        rows = np.flatnonzero((slots >= 0) & (batch.signal < len(self._slot_of)))
        rest, resting = self._rest(batch, machine)
        last = {int(machine[i]): int(batch.time[i]) for i in np.flatnonzero(np.diff(machine, append=-1))}
        if len(rows):
            order = rows[np.argsort(slots[rows], kind="stable")]
            found = self._look(batch, order, slots[order], rest, starts)
        else:
            found = Rows.nothing()
        self._course.run(found, last, resting)
        if len(rows):
            self._carry(found)
            self._twins.feed(found, self._course)
            batch = self._apply(batch, found)
        self._pass(starts)
        return batch

    def _pass(self, starts: dict[int, Ints]) -> None:
        for m, times in starts.items():
            self._parts[m] = self._parts.get(m, 0) + len(times)

    def _rest(
        self, batch: Batch, machine: NDArray[np.int32]
    ) -> tuple[NDArray[np.bool_], dict[int, tuple[Ints, list[bool]]]]:
        """Which readings come while their machine stands, and when each machine's standing changed."""
        rest = np.zeros(len(batch), bool)
        found: dict[int, tuple[Ints, list[bool]]] = {}
        for m, index in self._states.items():
            mine = np.flatnonzero(machine == m)
            if len(mine) == 0:
                continue
            said = mine[(batch.signal[mine] == index) & is_good(batch.status[mine])]
            info = self._out.info(self._state_key[m])
            texts = [(i, text_at(batch, i, info)) for i in said.tolist()]
            known = [(i, text.strip().lower() in self.config.standing) for i, text in texts if text is not None]
            times = batch.time[[i for i, _ in known]] if known else np.zeros(0, np.int64)
            flags = [self._standing.get(m, False), *(stands for _, stands in known)]
            rest[mine] = np.array(flags)[np.searchsorted(times, batch.time[mine], side="right")]
            self._standing[m] = flags[-1]
            found[m] = times, flags
        return rest, found

    def _look(
        self,
        batch: Batch,
        order: NDArray[np.intp],
        slot: NDArray[np.intp],
        rest: NDArray[np.bool_],
        starts: dict[int, Ints],
    ) -> Rows:
        whole, real = self.table.whole, self.table.real
        groups = Groups(slot)
        value, time = batch.value[order], batch.time[order]
        usable = is_good(batch.status[order]) & np.isfinite(value)
        aside = rest[order] | ~usable  # not to be judged
        broken = groups.before(aside, whole[groups.which, col.STOOD] > 0)
        before = groups.before(value, real[groups.which, col.LAST])
        step = np.abs(value - before)
        since = groups.before(time, whole[groups.which, col.TIME])
        judged = (whole[slot, col.STAGE] == JUDGED) & ~aside
        moved = step > 0
        for g in np.flatnonzero(whole[groups.which, col.STAGE] != JUDGED).tolist():
            a = int(groups.first[g])
            b = a + int(groups.size[g])
            start = a + self._learn(
                int(groups.which[g]), value[a:b], time[a:b], aside[a:b], broken[a:b], moved[a:b], starts
            )
            judged[start:b] = ~aside[start:b]
        joined = ~aside & ~broken
        equal = groups.runs((step == 0) & joined, whole[groups.which, col.EQUAL])
        still = groups.runs(judged & joined & (step <= real[slot, col.STILL_BELOW]), whole[groups.which, col.STILLS])
        beyond = ~aside & ((value <= real[slot, col.LOWEST]) | (value >= real[slot, col.HIGHEST]))
        out = groups.runs(beyond, whole[groups.which, col.OUT])
        fixed = whole[slot, col.FIXED]  # bounds that are configured hold before anything is learned
        known = judged | (fixed & 1 > 0)
        doubt = known & (equal >= whole[slot, col.EQUAL_DOUBT]) & (equal <= whole[slot, col.EQUAL_SICK])
        doubt |= judged & (still >= whole[slot, col.STILL_DOUBT]) & (still <= whole[slot, col.STILL_SICK])
        if doubt.any():
            doubt &= ~self._together(whole[slot, col.MACHINE], time, doubt, aside)
        doubt = ~aside & (beyond | doubt)
        jump = joined & (judged | (fixed & 2 > 0)) & (step > real[slot, col.JUMP_ABOVE])
        late = ~broken & (time - since > whole[slot, col.SILENT]) & (since > 0)
        return Rows(
            groups=groups, order=order, value=value, time=time, since=since, step=step, aside=aside, judged=judged,
            equal=equal, still=still, out=out, doubt=doubt, jump=jump, late=late,
            coarse=self._coarse(groups, judged & joined, step), sick=np.zeros(len(slot), bool),
        )  # fmt: skip

    @staticmethod
    def _together(machine: Ints, time: Ints, doubt: NDArray[np.bool_], aside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether half of a machine's readings at one time, and two or more, are in doubt: then the machine rests."""
        _, which = np.unique(np.column_stack([machine, time]), axis=0, return_inverse=True)
        which = which.reshape(-1)
        doubts = np.bincount(which, doubt & ~aside)
        return np.asarray(((doubts >= 2) & (2 * doubts >= np.bincount(which, ~aside)))[which])

    def _learn(
        self,
        slot: int,
        value: Floats,
        time: Ints,
        aside: NDArray[np.bool_],
        broken: NDArray[np.bool_],
        moved: NDArray[np.bool_],
        starts: dict[int, Ints],
    ) -> int:
        """Take readings of a slot that is not judged yet. Returns from which on it is."""
        table, whole = self.table, self.table.whole
        use = np.flatnonzero(~aside)
        at = 0
        while at < len(use):
            if whole[slot, col.STAGE] == DULL:
                again = np.flatnonzero(moved[use[at:]] & ~broken[use[at:]])
                if len(again) == 0:
                    return len(value)
                at += int(again[0])
                table.learn(slot, self.config.learn)
            desk, seen = table.desks[slot], int(whole[slot, col.SEEN])
            taken = use[at : at + len(desk.value) - seen]
            rows = slice(seen, seen + len(taken))
            desk.value[rows], desk.time[rows], desk.broken[rows] = value[taken], time[taken], broken[taken]
            m = int(whole[slot, col.MACHINE])
            if seen == 0:
                whole[slot, col.PARTS] = self._parts_at(m, int(time[taken[0]]), starts)
            whole[slot, col.SEEN] = seen + len(taken)
            at += len(taken)
            if whole[slot, col.SEEN] < len(desk.value):
                return len(value)
            parts = self._parts_at(m, int(time[taken[-1]]), starts) - int(whole[slot, col.PARTS])
            gaps = np.diff(desk.time)[~desk.broken[1:]] / 1e9
            gap, longest = (float(gaps.mean()), float(gaps.max())) if len(gaps) else (0.0, 0.0)
            reference = learn(desk.value, desk.broken, gap, longest, dense=len(desk.value) >= SEVERAL * parts)
            table.learned(slot, reference)
            if reference is not None:
                return int(taken[-1]) + 1
        return len(value)

    def _parts_at(self, machine: int, time: int, starts: dict[int, Ints]) -> int:
        return self._parts.get(machine, 0) + int(np.searchsorted(starts.get(machine, _NONE), time, side="right"))

    def _coarse(self, groups: Groups, use: NDArray[np.bool_], step: Floats) -> dict[int, bool]:
        """Row that ends a block → whether all its steps were coarse; without blocks that nothing depends on."""
        whole, real = self.table.whole, self.table.real
        rows = np.flatnonzero(use)
        if len(rows) == 0:
            return {}
        slot, steps = groups.slot[rows], step[rows]
        mine = Groups(slot)
        count = np.repeat(whole[mine.which, col.FILLED], mine.size) + mine.rank
        block = count // BLOCK
        cut = np.flatnonzero(np.concatenate([[True], (np.diff(slot) != 0) | (np.diff(block) != 0)]))
        equals = np.add.reduceat((steps == 0).astype(np.int64), cut)
        smallest = np.minimum.reduceat(np.where(steps > 0, steps, np.inf), cut)
        of = slot[cut]
        carried = mine.rank[cut] == 0
        equals[carried] += whole[of[carried], col.EQUALS]
        smallest[carried] = np.minimum(smallest[carried], real[of[carried], col.SMALLEST])
        ends = np.append(cut[1:], len(rows)) - 1
        full = count[ends] % BLOCK == BLOCK - 1
        whole[mine.which, col.FILLED] = count[mine.last] + 1
        tail = np.flatnonzero(np.append(np.diff(of) != 0, True))
        whole[of[tail], col.EQUALS] = np.where(full[tail], 0, equals[tail])
        real[of[tail], col.SMALLEST] = np.where(full[tail], np.inf, smallest[tail])
        bad = (equals >= REPEATS * BLOCK) & np.isfinite(smallest) & (smallest > SMALLEST_STEP * real[of, col.TYPICAL])
        concerned = (whole[of, col.SICK] == 1 + CHECKS.index("quantised")) | np.isin(of, of[full & bad])
        told = np.flatnonzero(full & concerned)
        return {int(rows[ends[i]]): bool(bad[i]) and self.table.quantisable(int(of[i])) for i in told.tolist()}

    def _carry(self, found: Rows) -> None:
        """Remember where each signal stands."""
        groups, whole, real = found.groups, self.table.whole, self.table.real
        which, last = groups.which, groups.last
        whole[which, col.EQUAL], whole[which, col.STILLS] = found.equal[last], found.still[last]
        whole[which, col.OUT], whole[which, col.STOOD] = found.out[last], found.aside[last]
        whole[which, col.TIME], whole[which, col.PASSED] = found.time[last], 0
        real[which, col.LAST] = found.value[last]
        fine = found.judged & ~found.doubt & ~found.sick
        np.minimum.at(real[:, col.LOW], groups.slot[fine], found.value[fine])
        np.maximum.at(real[:, col.HIGH], groups.slot[fine], found.value[fine])

    def _apply(self, batch: Batch, found: Rows) -> Batch:
        doubt, sick = found.doubt & ~found.sick & ~found.aside, found.sick
        self.doubted += int(np.count_nonzero(doubt))
        self.sick += int(np.count_nonzero(sick))
        if not doubt.any() and not sick.any():
            return batch
        value, status = batch.value.copy(), batch.status.copy()
        value[found.order[doubt]] = np.nan
        status[found.order[sick]] = NOT_ACCURATE
        return msgspec.structs.replace(batch, value=value, status=status)

    # --- saving ---

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "table": self.table.save(),
            "twins": self._twins.save(),
            "standing": list(self._standing.items()),
            "parts": list(self._parts.items()),
            "doubted": self.doubted,
            "sick": self.sick,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.table.load(saved["table"], self.config)
        self._twins.load(saved["twins"])
        self._standing = {int(m): bool(stands) for m, stands in saved["standing"]}
        self._parts = {int(m): int(n) for m, n in saved["parts"]}
        self.doubted, self.sick = saved["doubted"], saved["sick"]


_NONE = np.zeros(0, np.int64)
