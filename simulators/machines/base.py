"""What a simulated machine is: a pure generator of readings and parts, in simulated time.

Time is `start + k * sample period`. Part n (1 is the first) occupies the n-th cycle of the takt; a whole cycle is drawn
at once from the machine's own random stream, so readings do not depend on how time is cut into steps. Faults act from
the start of one part to the start of another, and have a random stream of their own: a fault changes the signals that
its physics says, and leaves every other reading bit for bit as it would have been.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

IDLE = "idle"
RUNNING = "running"
LOADING = 0.1  # share of a cycle in which a part is loaded and the machine is idle
MEASURING = 0.9  # share of a cycle after which its results are published


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a signal.

    Attributes:
        name: unique in its machine.
        unit: as printed; empty if it has none.
        kind: gauge, counter, state or text.
        low: lower end of the sensor's range (EURange).
        high: upper end of the sensor's range.
        lsl: lower specification limit.
        usl: upper specification limit.
        target: nominal value.
        per_part: how the values of one part follow those of the last, when no fault is active: `iid` (normal and
            independent, made for a control chart), `autocorrelated` (slow, such as a temperature), or empty (text).
        about: what it is, in words.
    """

    name: str
    unit: str = ""
    kind: Literal["gauge", "counter", "state", "text"] = "gauge"
    low: float | None = None
    high: float | None = None
    lsl: float | None = None
    usl: float | None = None
    target: float | None = None
    per_part: Literal["iid", "autocorrelated", ""] = ""
    about: str = ""


STATE = Signal(name="state", kind="state", about="idle while a part is loaded, running while it is made")
PART_ID = Signal(name="part_id", kind="text", about="the part on the machine; empty when there is none")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A process fault to inject.

    Attributes:
        kind: one of the machine's `FAULTS`.
        start_part: the first part it affects; 1 is the first part made.
        end_part: the first part after the repair; None for never.
        severity: 1 is the size that the machine's file describes; effects scale with it.
    """

    kind: str
    start_part: int
    end_part: int | None = None
    severity: float = 1.0


class Reading(NamedTuple):
    """One value of one signal; `ts` in ns, UTC; `status` an OPC UA StatusCode."""

    signal: str
    ts: int
    value: float | str
    status: int = 0


class Part(NamedTuple):
    """A part that was made: its true dimensions, and whether they are within the specification."""

    id: str
    start: int
    end: int
    good: bool
    why: str
    dimensions: dict[str, float]


class FaultEvent(NamedTuple):
    """A fault that began (`end` None) or ended; the same `id` joins both."""

    id: str
    kind: str
    signals: tuple[str, ...]
    start: int
    end: int | None
    first_part: str
    severity: float


class Step(NamedTuple):
    """What happened in a stretch of time, each list ascending in time."""

    readings: list[Reading]
    parts: list[Part]
    faults: list[FaultEvent]


class Cycle(msgspec.Struct, frozen=True, eq=False):
    """What a machine makes of one part.

    Attributes:
        samples: signal → one value a tick, (ticks,); NaN where the signal is silent.
        events: (tick, signal, value): values published once.
        dimensions: the true dimensions.
        why: what is out of specification; empty for a good part.
    """

    samples: Mapping[str, NDArray[np.float64]]
    events: Sequence[tuple[int, str, float | str]]
    dimensions: dict[str, float]
    why: str


class Active(NamedTuple):
    """A fault in force: its severity, and how many affected parts were made before this one."""

    severity: float
    age: int


class Machine:
    """A machine that makes one part a cycle.

    Args:
        name: such as `cnc-07`; part ids begin with it.
        seed: the same seed gives the same readings. Machines of one seed differ by their names.
        start: time of the first reading, ns; whole microseconds.
        sample_period: ns between two samples; whole microseconds.
        cycle: ns between two parts; at least 4 sample periods, rounded to whole ones.
        faults: what goes wrong, and when.
        parts: how many parts to make; None for no end.

    Raises:
        ValueError: if a fault is not one of this kind of machine, if two of one kind overlap, or a cycle is too short.
    """

    KIND: ClassVar[str]
    PROTOCOL: ClassVar[Literal["opcua", "mqtt"]]
    ABOUT: ClassVar[str]
    SIGNALS: ClassVar[tuple[Signal, ...]]
    FAULTS: ClassVar[Mapping[str, tuple[str, ...]]]  # kind → the signals that it moves

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        start: int,
        sample_period: int,
        cycle: int,
        faults: Sequence[Fault] = (),
        parts: int | None = None,
    ) -> None:
        self.name = name
        self.start = start
        self.period = sample_period
        self.ticks = round(cycle / sample_period)
        if self.ticks < 4:
            raise ValueError(f"{name}: a cycle needs at least 4 samples, not {self.ticks}")
        if start % 1000 or sample_period % 1000:
            raise ValueError(f"{name}: start and sample period must be whole microseconds")
        self.idle = max(1, round(LOADING * self.ticks))
        self.measured = min(self.ticks - 1, max(self.idle, round(MEASURING * self.ticks)))
        self.parts = parts
        self.faults = _ordered(name, self.FAULTS, faults)
        key = zlib.crc32(name.encode())
        self.rng = np.random.default_rng([seed, key])
        self.fault_rng = np.random.default_rng([seed, key, 1])
        self.done = parts == 0
        self._made = 0  # cycles drawn
        self._pending: list[Reading] = []  # of the cycle in work, not yet due
        self._part: Part | None = None  # the part in work
        self._open: dict[int, FaultEvent] = {}

    def part_id(self, n: int) -> str:
        """The id of part `n`."""
        return f"{self.name}-{n:06d}"

    def step(self, until: int) -> Step:
        """Everything that happens up to and at `until` (ns) and was not given before."""
        step = Step([], [], [])
        while not self.done:
            if self._part is None or self._part.end <= until:
                step.readings.extend(self._pending)
                self._pending = []
                if not self._next(until, step):
                    return step
                continue
            due = sum(1 for r in self._pending if r.ts <= until)
            step.readings.extend(self._pending[:due])
            del self._pending[:due]
            return step
        return step

    def stop(self, now: int) -> list[FaultEvent]:
        """End production early, at `now`: the faults that end with it. The part in work is never finished."""
        self.done = True
        ended = [event._replace(end=now) for event in self._open.values()]
        self._open = {}
        return ended

    def _next(self, until: int, step: Step) -> bool:
        """Finish the part in work and begin the next; False if that one is not due."""
        if self._part is not None:
            step.parts.append(self._part)
            self._part = None
        begin = self.start + self._made * self.ticks * self.period
        if begin > until:
            return False
        n = self._made + 1
        last = self.parts is not None and n > self.parts
        for i, fault in enumerate(self.faults):
            if i in self._open and (last or fault.end_part == n):
                step.faults.append(self._open.pop(i)._replace(end=begin))
            if fault.start_part == n and not last:
                self._open[i] = FaultEvent(
                    f"{self.name}-{fault.kind}-{i + 1}",
                    fault.kind,
                    self.FAULTS[fault.kind],
                    begin,
                    None,
                    self.part_id(n),
                    fault.severity,
                )
                step.faults.append(self._open[i])
        if last:
            step.readings.extend((Reading(STATE.name, begin, IDLE), Reading(PART_ID.name, begin, "")))
            self.done = True
            return False
        self._begin(n, begin)
        return True

    def _begin(self, n: int, begin: int) -> None:
        active = {
            f.kind: Active(f.severity, n - f.start_part)
            for f in self.faults
            if f.start_part <= n and (f.end_part is None or n < f.end_part)
        }
        made = self._cycle(n, active)
        ticks: list[list[Reading]] = [[] for _ in range(self.ticks)]
        ticks[0] += [Reading(PART_ID.name, begin, self.part_id(n)), Reading(STATE.name, begin, IDLE)]
        ticks[self.idle].append(Reading(STATE.name, begin + self.idle * self.period, RUNNING))
        for tick, signal, value in made.events:
            ticks[tick].append(Reading(signal, begin + tick * self.period, value))
        for signal, values in made.samples.items():
            for tick, value in enumerate(values.tolist()):
                if value == value:  # noqa: PLR0124  NaN: the signal is silent
                    ticks[tick].append(Reading(signal, begin + tick * self.period, value))
        self._pending = [reading for tick in ticks for reading in tick]
        end = begin + self.ticks * self.period
        self._part = Part(self.part_id(n), begin, end, not made.why, made.why, made.dimensions)
        self._made = n

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        """Make part `n`. Draws the same number of values from `rng` whatever is `active`."""
        raise NotImplementedError

    def ended(self, kind: str, n: int) -> int:
        """How many faults of a kind were repaired before part `n` began."""
        return sum(1 for f in self.faults if f.kind == kind and f.end_part is not None and f.end_part <= n)


def _ordered(name: str, known: Mapping[str, Any], faults: Sequence[Fault]) -> tuple[Fault, ...]:
    ordered = tuple(sorted(faults, key=lambda f: f.start_part))
    free: dict[str, int | None] = {}
    for f in ordered:
        if f.kind not in known:
            raise ValueError(f"{name}: has no fault `{f.kind}`; it has {', '.join(known)}")
        if f.start_part < 1 or (f.end_part is not None and f.end_part <= f.start_part):
            raise ValueError(f"{name}: fault `{f.kind}` must start at part 1 or later, and end after it started")
        if not f.severity > 0:
            raise ValueError(f"{name}: fault `{f.kind}` needs a severity above 0")
        busy_until = free.get(f.kind, 0)
        if busy_until is None or f.start_part < busy_until:
            raise ValueError(f"{name}: two faults `{f.kind}` overlap at part {f.start_part}")
        free[f.kind] = f.end_part
    return ordered


def out_of_spec(signal: str, value: float, lsl: float, usl: float, unit: str) -> str:
    """Why a dimension is bad, in words; empty if it is good."""
    if value < lsl:
        return f"{signal} {value:.4f} {unit} is below {lsl:g} {unit}"
    if value > usl:
        return f"{signal} {value:.4f} {unit} is above {usl:g} {unit}"
    return ""


def first_order(values: NDArray[np.float64], previous: float, phi: float) -> NDArray[np.float64]:
    """y[k] = phi * y[k-1] + (1 - phi) * x[k]: a first-order lag, sampled. (n,) → (n,)."""
    out = np.empty_like(values)
    y = previous
    for k, x in enumerate(values.tolist()):
        y = phi * y + (1.0 - phi) * x
        out[k] = y
    return out
