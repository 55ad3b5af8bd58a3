"""When did it change? The most likely time of a step of the mean, among the newest values of each channel.

With values in control about `center` up to number t, and about another mean from then to the newest, T, the most likely
t is the one with the largest (T - t) (mean of the values after t - center)^2: Samuel, Pignatiello & Calvin, Identifying
the time of a step change with X-bar control charts, Quality Engineering 10 (1998) 521-527.

>>> step_change(np.array([0.1, -0.3, 0.2, -0.1, 1.4, 0.9, 1.2]), 0.0)
4
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.state import grow, pack, unpack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KEPT = 64  # values: a change that is further back is told as at least that far


class Change(NamedTuple):
    """A step: event time of the first value behind it, how many values are behind it, by how many sigmas it went."""

    time: int
    values: int
    shift: float


def step_change(values: Floats, center: float) -> int:
    """Index of the first value behind the step, of values (n,) with n >= 1 about `center`."""
    behind = np.cumsum((values - center)[::-1])[::-1]
    return int(np.argmax(behind * behind / np.arange(len(values), 0, -1)))


class Recent:
    """The newest values of many channels since each was in control, and what each is compared with."""

    def __init__(self) -> None:
        self._value = np.zeros((0, KEPT))
        self._time = np.zeros((0, KEPT), np.int64)
        self._count = np.zeros(0, np.int64)
        self._expected = np.zeros((0, 2))  # centre and sigma; no sigma: not known yet

    def grow(self, channels: int) -> None:
        """Make room for channels."""
        self._value, self._time = grow(self._value, channels), grow(self._time, channels)
        self._count, self._expected = grow(self._count, channels), grow(self._expected, channels)

    def expect(self, channel: int, center: float, sigma: float) -> None:
        """From now on a channel is compared with this, afresh."""
        self._expected[channel] = center, sigma
        self._count[channel] = 0

    def forget(self, channel: int) -> None:
        """A channel is in control again: what was before says nothing of the next change."""
        self._count[channel] = 0

    def add(self, channel: NDArray[np.intp], time: Ints, value: Floats) -> None:
        """Take one value for each of k channels."""
        at = self._count[channel] % KEPT
        self._value[channel, at], self._time[channel, at] = value, time
        self._count[channel] += 1

    def change(self, channel: int) -> Change | None:
        """The most likely step among what is kept of a channel; None if nothing is known of it."""
        center, sigma = self._expected[channel].tolist()
        if self._count[channel] == 0 or not sigma > 0:
            return None
        times, values = self.history(channel)
        first = step_change(values, center)
        return Change(int(times[first]), len(values) - first, float((values[first:].mean() - center) / sigma))

    def history(self, channel: int) -> tuple[Ints, Floats]:
        """Times and values that are kept of a channel, oldest first."""
        count = int(self._count[channel])
        order = np.arange(count - min(count, KEPT), count) % KEPT
        return self._time[channel, order], self._value[channel, order]

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        names = ("value", "time", "count", "expected")
        return {name: pack(getattr(self, f"_{name}")) for name in names}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._value, self._time = unpack(saved["value"]), unpack(saved["time"])
        self._count, self._expected = unpack(saved["count"]), unpack(saved["expected"])


def stamp(time: int) -> str:
    """A time as people read it, UTC, to the second."""
    try:
        return datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time} ns"


def words(change: Change | None, *, sigmas: bool = True) -> str:
    """A change as the end of a finding's detail; empty if nothing is known, or it came at once."""
    if change is None or change.values < 2:
        return ""
    least = "at least " if change.values >= KEPT else ""
    said = f"; most likely since {stamp(change.time)} ({least}{change.values} values)"
    return said + (f", {abs(change.shift):.1f} sigma {'up' if change.shift > 0 else 'down'}" if sigmas else "")
