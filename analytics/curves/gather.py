"""Gathers the curve of the part at hand, one `[[curve]]` on one machine, and keeps what is learned of it."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.curves.config import TIME, CurveConfig
from analytics.curves.envelope import Doubt, Envelope, learn, resample
from analytics.state import pack, unpack
from fieldlab.model import Limits, Place

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_READINGS = 200_000  # of one curve
_FINER = 4  # points of a curve that is kept, for one of the grid
_UNDECIDED = 0.1  # share of a baseline by which the range of the grid may fail to be reached


class State(msgspec.Struct):
    """What a follower remembers but arrays."""

    open: bool = False
    inside: int = 0
    cause: str = ""
    too_long: bool = False
    limits: Limits | None = None


class Curve(msgspec.Struct, frozen=True, eq=False):
    """The curve of one part: x, y and event time of each reading, ascending in x; phase of each, if they are told."""

    x: Floats
    y: Floats
    time: Ints
    phase: list[str]

    def within(self, phase: str) -> "Curve":
        """Its readings in a phase."""
        rows = [i for i, name in enumerate(self.phase) if name == phase]
        return Curve(self.x[rows], self.y[rows], self.time[rows], [phase] * len(rows))


class Follower:
    """One `[[curve]]` on one machine."""

    def __init__(self, config: CurveConfig, place: Place) -> None:
        self.config, self.place = config, place
        self.state = State()
        self.envelope: Envelope | None = None
        self.baseline: list[Floats] = []  # kept curves, each (2, points): x and y
        self._pieces: list[tuple[Ints, NDArray[np.int8], Floats]] = []  # time, which signal, value
        self._count = 0

    def add(self, time: Ints, which: NDArray[np.int8], value: Floats) -> None:
        """Take Good numbers of the part at hand, in event order; `which` counts `config.signals`."""
        self._count += len(time)
        if self._count > MOST_READINGS:
            self.state.too_long = True
        elif len(time):
            self._pieces.append((time, which, value))

    def reset(self) -> None:
        """The next part."""
        self._pieces, self._count, self.state.too_long = [], 0, False

    def curve(self, start: int, history: list[tuple[int, str]]) -> Curve:
        """The curve of the part that began at `start`, whose phases began as `history` says."""
        time, y = self.readings(self.config.y)
        names = [name for _, name in history]
        at = np.searchsorted(np.array([t for t, _ in history], np.int64), time, side="right") - 1
        phase = [names[i] if i >= 0 else "" for i in at.tolist()]
        if self.config.phase:
            use = np.array([name == self.config.phase for name in phase], bool)
            start = next((t for t, name in history if name == self.config.phase), start)
            time, y, phase = time[use], y[use], [self.config.phase] * int(np.count_nonzero(use))
        if self.config.x == TIME:
            return Curve((time - start) / 1e9, y, time, phase)
        when, value = self.readings(self.config.x)
        if len(when) == 0:
            return Curve(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), [])
        use = (time >= when[0]) & (time <= when[-1])
        x = np.interp((time - when[0]) / 1e9, (when - when[0]) / 1e9, value)
        highest = np.maximum.accumulate(np.where(use, x, -np.inf))
        before = np.concatenate([[-np.inf], highest[:-1]])
        rows = np.flatnonzero(use & (x > before))  # the first sweep upwards
        return Curve(x[rows], y[rows], time[rows], [phase[i] for i in rows.tolist()])

    def readings(self, name: str) -> tuple[Ints, Floats]:
        """Times and values of one signal in the part."""
        which = self.config.signals.index(name)
        mine = [(time[w == which], value[w == which]) for time, w, value in self._pieces]
        times = np.concatenate([np.zeros(0, np.int64), *(time for time, _ in mine)])
        return times, np.concatenate([np.zeros(0), *(value for _, value in mine)])

    def keep(self, curve: Curve) -> Floats:
        """A curve on a grid of its own, fine enough for the common one: (2, points)."""
        x = np.linspace(curve.x[0], curve.x[-1], _FINER * self.config.points + 1)
        return np.stack([x, np.interp(x, curve.x, curve.y)])

    def learn(self) -> Envelope | Doubt:
        """The envelope of the baseline."""
        kept = self.baseline
        low, high = self.config.range or (
            float(np.quantile([k[0, 0] for k in kept], 1 - _UNDECIDED)),
            float(np.quantile([k[0, -1] for k in kept], _UNDECIDED)),
        )
        if not low < high:
            return Doubt("unlike", low, high, f"curves have no range of {self.config.x} in common; give `range`")
        grid = np.linspace(low, high, self.config.points)
        return learn(grid, np.stack([resample(k[0], k[1], grid) for k in kept]), self.config.false_alarm_rate)

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "state": msgspec.to_builtins(self.state),
            "envelope": self.envelope.save() if self.envelope else None,
            "baseline": [pack(k) for k in self.baseline],
            "readings": [pack(np.concatenate([p[i] for p in self._pieces])) for i in range(3)]
            if self._pieces
            else None,
            "count": self._count,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.state = msgspec.convert(saved["state"], State)
        self.envelope = Envelope.load(saved["envelope"]) if saved["envelope"] else None
        self.baseline = [unpack(k) for k in saved["baseline"]]
        if saved["readings"]:
            time, which, value = (unpack(column) for column in saved["readings"])
            self._pieces = [(time, which, value)]
        self._count = saved["count"]
