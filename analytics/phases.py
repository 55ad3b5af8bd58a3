"""The phases of a machine's cycle, as a signal names them: which phase a reading belongs to, and how long each lasted.

A reading with the very time of a change belongs to the new phase. The phases of one part that have one name count
together: three passes of cutting are one phase `cutting`.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BEFORE = -(2**62)
_MOST = 10_000  # phases of one part that are remembered


class Phases:
    """The phases of one machine.

    Attributes:
        spent: ns in each phase since the part began.
        history: when each of its phases began, ns, and its name.
    """

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.history: list[tuple[int, str]] = []
        self._now = ""  # the phase in force behind the readings that were told
        self._since: int | None = None  # up to when `spent` counts
        self._times = np.array([_BEFORE], np.int64)  # of the readings at hand: when each phase began, and its name
        self._names = [""]

    def tell(self, times: list[int], names: list[str]) -> None:
        """Take the changes among the next readings, ascending; of two at one time the later one holds."""
        found = {_BEFORE: self._now} | dict(zip(times, names, strict=True))
        self._times, self._names = np.array(list(found), np.int64), list(found.values())
        self._now = self._names[-1]

    def during(self, time: NDArray[np.int64], phase: str) -> NDArray[np.bool_]:
        """Which of these moments of the readings at hand are in a phase, (n,)."""
        which = np.array([name == phase for name in self._names])
        return np.asarray(which[np.searchsorted(self._times, time, side="right") - 1])

    def spend(self, until: int) -> None:
        """Count the time up to a moment of the readings at hand."""
        if self._since is None:
            self._since = until
        start = max(self._since, int(self._times[0]))
        bounds = [start, *(t for t in self._times.tolist() if start < t < until), until]
        for a, b in pairwise(bounds):
            if b <= a:
                continue
            name = self._names[int(np.searchsorted(self._times, a, side="right")) - 1]
            if name:
                self.spent[name] = self.spent.get(name, 0) + b - a
            if (not self.history or self.history[-1][1] != name) and len(self.history) < _MOST:
                self.history.append((a, name))
        self._since = max(until, self._since)

    def begin(self, time: int) -> None:
        """A part begins."""
        self.spent, self.history, self._since = {}, [], time

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {"now": self._now, "since": self._since, "spent": dict(self.spent), "history": self.history}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._now, self._since, self.spent = saved["now"], saved["since"], dict(saved["spent"])
        self.history = [(time, name) for time, name in saved["history"]]
        self._names = [self._now]
