"""Gathers n values in a row of each channel into a subgroup: mean, range or standard deviation, size."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analytics.state import grow, pack, unpack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_COUNT, _FIRST, _SUM, _SQUARE, _LOW, _HIGH = range(6)


class Subgroups:
    """The subgroups that are open, one a channel. Sums are taken about the first value: no cancellation."""

    def __init__(self, size: int, spread: Literal["range", "std"]) -> None:
        self.size = size
        self._spread = spread
        self._table = np.zeros((0, 6))
        self._start = np.zeros(0, np.int64)

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._table, self._start = grow(self._table, channels), grow(self._start, channels)

    def forget(self, channel: int) -> None:
        """Drop the values of an open subgroup."""
        self._table[channel] = 0.0

    def add(self, channel: NDArray[np.intp], time: Ints, value: Floats) -> tuple[NDArray[np.intp], Floats, Ints]:
        """Take one value for each of k channels.

        Returns:
            The rows whose subgroup is complete now, (d,); their (mean, spread, size), (d, 3); and when each began.
        """
        rows = self._table[channel]
        new = rows[:, _COUNT] == 0
        rows[new, _FIRST] = rows[new, _LOW] = rows[new, _HIGH] = value[new]
        self._start[channel[new]] = time[new]
        away = value - rows[:, _FIRST]
        rows[:, _COUNT] += 1
        rows[:, _SUM] += away
        rows[:, _SQUARE] += away * away
        rows[:, _LOW] = np.minimum(rows[:, _LOW], value)
        rows[:, _HIGH] = np.maximum(rows[:, _HIGH], value)
        done = np.flatnonzero(rows[:, _COUNT] == self.size)
        full, n = rows[done], float(self.size)
        mean = full[:, _FIRST] + full[:, _SUM] / n
        if self._spread == "range":
            spread = full[:, _HIGH] - full[:, _LOW]
        else:
            spread = np.sqrt(np.maximum(full[:, _SQUARE] - full[:, _SUM] ** 2 / n, 0.0) / (n - 1))
        rows[done] = 0.0
        self._table[channel] = rows
        return done, np.column_stack([mean, spread, np.full(len(done), n)]), self._start[channel[done]]

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"table": pack(self._table), "start": pack(self._start)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._table, self._start = unpack(saved["table"]), unpack(saved["start"])
