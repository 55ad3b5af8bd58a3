"""Features of the readings in a window, for many signals at once, exact whatever the batches."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.config import Feature
from analytics.state import grow, pack, unpack
from fieldlab.model.status import NOT_ACCURATE, is_good

Floats = NDArray[np.float64]

_GOOD, _OTHER, _FIRST, _SUM, _SQUARE, _LOW, _HIGH, _LAST, _SICK = range(9)


class Accumulator:
    """Running sums of k slots (one a signal) over the window that is open.

    Sums are taken about the first value (no cancellation on large offsets), one reading after the other, so that the
    result is the same bit for bit however readings are cut into batches.
    """

    def __init__(self) -> None:
        self._table = np.zeros((0, 9))
        self._known = np.zeros((0, 2))  # whether, and which, value was in force when the window opened
        self._time = np.zeros((0, 2), np.int64)  # first and last Good reading

    def grow(self, slots: int) -> None:
        """Make room for slots."""
        self._table, self._time = grow(self._table, slots), grow(self._time, slots)
        self._known = grow(self._known, slots)

    def add(self, slot: NDArray[np.intp], time: NDArray[np.int64], value: Floats, status: NDArray[np.uint32]) -> None:
        """Take readings in event order. Only Good numbers count; Bad and Uncertain ones are counted as `other`."""
        well = is_good(status)
        np.add.at(self._table[:, _OTHER], slot[~well], 1.0)
        np.add.at(self._table[:, _SICK], slot[status & np.uint32(0xFFFF0000) == NOT_ACCURATE], 1.0)
        use = well & np.isfinite(value)
        slot, time, value = slot[use], time[use], value[use]
        table = self._table
        new = table[slot, _GOOD] == 0
        for column in (_FIRST, _LOW, _HIGH):
            table[slot[new][::-1], column] = value[new][::-1]  # the earliest wins
        self._time[slot[new][::-1], 0] = time[new][::-1]
        away = value - table[slot, _FIRST]
        np.add.at(table[:, _GOOD], slot, 1.0)
        np.add.at(table[:, _SUM], slot, away)
        np.add.at(table[:, _SQUARE], slot, away * away)
        np.minimum.at(table[:, _LOW], slot, value)
        np.maximum.at(table[:, _HIGH], slot, value)
        table[slot, _LAST] = value  # the latest wins
        self._time[slot, 1] = time

    def good(self, slot: NDArray[np.intp]) -> Floats:
        """Good readings in the window."""
        return np.asarray(self._table[slot, _GOOD])

    def other(self, slot: NDArray[np.intp]) -> Floats:
        """Bad and Uncertain readings in the window."""
        return np.asarray(self._table[slot, _OTHER])

    def sick(self, slot: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether the sensor was sick at a time in the window: its features say nothing then."""
        return np.asarray(self._table[slot, _SICK] > 0)

    def feature(self, slot: NDArray[np.intp], feature: Feature, length_ns: int | None = None) -> Floats:
        """One feature of each slot; NaN where there is no Good reading (or one alone, for std), or a sick sensor.

        Args:
            slot: which slots, (k,).
            feature: see `analytics.config.Feature`. `duration` is in seconds: `length_ns` if it is given (a part), else
                from the first to the last Good reading.
            length_ns: length of the window.
        """
        rows = self._table[slot]
        count = rows[:, _GOOD]
        with np.errstate(invalid="ignore", divide="ignore"):
            if feature == "sum":
                found = rows[:, _FIRST] * count + rows[:, _SUM]
            elif feature == "mean":
                found = rows[:, _FIRST] + rows[:, _SUM] / count
            elif feature == "std":
                found = np.sqrt(np.maximum(rows[:, _SQUARE] - rows[:, _SUM] ** 2 / count, 0.0) / (count - 1))
                found = np.where(count > 1, found, np.nan)
            elif feature == "range":
                found = rows[:, _HIGH] - rows[:, _LOW]
            elif feature == "duration":
                span = self._time[slot, 1] - self._time[slot, 0]
                found = (span if length_ns is None else np.full(len(slot), length_ns)) / 1e9
            else:
                found = rows[:, {"last": _LAST, "min": _LOW, "max": _HIGH}[feature]]
        return np.where((count > 0) & (rows[:, _SICK] == 0), found, np.nan)

    def steady(self, slot: NDArray[np.intp]) -> Floats:
        """The one value in force all through the window, also if it was said before; NaN if it changed."""
        rows, known = self._table[slot], self._known[slot]
        said, before = rows[:, _GOOD] > 0, known[:, 0] > 0
        same = (rows[:, _LOW] == rows[:, _HIGH]) & (~before | (known[:, 1] == rows[:, _LOW]))
        return np.where(said, np.where(same, rows[:, _LOW], np.nan), np.where(before, known[:, 1], np.nan))

    def reset(self) -> None:
        """Start the next window."""
        said = self._table[:, _GOOD] > 0
        self._known[said, 0], self._known[said, 1] = 1.0, self._table[said, _LAST]
        self._table[:] = 0.0
        self._time[:] = 0

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {"table": pack(self._table), "time": pack(self._time), "known": pack(self._known)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._table, self._time = unpack(saved["table"]), unpack(saved["time"])
        self._known = unpack(saved["known"])


class Windows:
    """Consecutive windows of one width on one machine, aligned to the epoch."""

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self.accumulator = Accumulator()
        self.slots: dict[int, int] = {}  # signal index → slot
        self.open: int | None = None  # number of the open window

    def slot(self, signal: int) -> int:
        """The slot of a signal, a new one if it has none."""
        found = self.slots.setdefault(signal, len(self.slots))
        self.accumulator.grow(len(self.slots))
        return found

    def segments(self, time: NDArray[np.int64]) -> list[tuple[int, slice]]:
        """(number of the window, rows) for sorted times."""
        number = time // self.width_ns
        cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(time)]
        return [(int(number[a]), slice(a, b)) for a, b in pairwise(cuts) if b > a]

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {"slots": list(self.slots.items()), "open": self.open, "accumulator": self.accumulator.save()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.slots = {int(signal): int(slot) for signal, slot in saved["slots"]}
        self.open = saved["open"]
        self.accumulator.load(saved["accumulator"])
