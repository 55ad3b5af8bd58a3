"""What a simulated machine is: a pure generator of readings and parts, in simulated time.

Time is `start + k * sample period`. Part n (1 is the first) occupies the n-th cycle of the takt; a whole cycle is drawn
at once from the machine's own random stream, so readings do not depend on how time is cut into steps. Faults act from
the start of one part to the start of another, and have a random stream of their own: a fault changes the signals that
its physics says, and leaves every other reading bit for bit as it would have been.
"""

import math
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.machines.records import (
    CONTEXT,
    PART_ID,
    STATE,
    Active,
    Context,
    Cycle,
    Fault,
    FaultEvent,
    Part,
    Reading,
    Signal,
    Step,
)

IDLE = "idle"
RUNNING = "running"
LOADING = 0.1  # share of a cycle in which a part is loaded and the machine is idle
_SHIFTS = ("night", "early", "late")  # from midnight
_REMEMBERED = 1000  # parts whose dimensions a machine keeps for the one that comes after
MEASURING = 0.9  # share of a cycle after which its results are published


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
        context: lots, shifts and people; None for none of them.

    Attributes:
        upstream: the machine whose part `n` becomes this machine's part `n`; see `follow`.
        follower: the machine that comes after.
        signals: those of the kind, and of the context if there is one.

    Raises:
        ValueError: if a fault is not one of this kind of machine, if two of one kind overlap, or a cycle is too short.
    """

    KIND: ClassVar[str]
    PROTOCOL: ClassVar[Literal["opcua", "mqtt"]]
    DIALECTS: ClassVar[tuple[str, ...]] = ("json",)  # of MQTT, its own first
    ABOUT: ClassVar[str]
    SIGNALS: ClassVar[tuple[Signal, ...]]
    FAULTS: ClassVar[Mapping[str, tuple[str, ...]]]  # kind → the signals that it moves, the clearest first
    FELT: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {}  # fault → kind of a machine after it → its signals
    HARMLESS: ClassVar[frozenset[str]] = frozenset()  # faults that spoil no part

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
        context: Context | None = None,
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
        self.context = context
        self.upstream: Machine | None = None
        self.follower: Machine | None = None
        self.signals = self.SIGNALS + (CONTEXT if context else ())
        self._seed = seed
        self.faults = _ordered(name, self.FAULTS, faults)
        key = zlib.crc32(name.encode())
        self.rng = np.random.default_rng([seed, key])
        self.fault_rng = np.random.default_rng([seed, key, 1])
        self.done = parts == 0
        self._made = 0  # cycles drawn
        self._pending: list[Reading] = []  # of the cycle in work, not yet due
        self._part: Part | None = None  # the part in work
        self._open: dict[Fault, FaultEvent] = {}
        self._slow: dict[str, float] = {}  # where each slow level stood at the end of the last cycle
        self._drawn: deque[tuple[int, Cycle]] = deque()  # cycles that are drawn and not yet begun
        self._history: dict[int, dict[str, float]] = {}  # part → dimensions, the newest ones, for who comes after
        self._draws = 0

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
            if fault in self._open and (last or fault.end_part == n):
                step.faults.append(self._open.pop(fault)._replace(end=begin))
            if fault.start_part == n and not last:
                self._open[fault] = FaultEvent(
                    f"{self.name}-{fault.kind}-{i + 1}",
                    fault.kind,
                    self.FAULTS[fault.kind],
                    begin,
                    None,
                    self.part_id(n),
                    fault.severity,
                    self._downstream(fault.kind),
                )
                step.faults.append(self._open[fault])
        if last:
            step.readings.extend((Reading(STATE.name, begin, IDLE), Reading(PART_ID.name, begin, "")))
            self.done = True
            return False
        self._begin(n, begin)
        return True

    def inject(self, kind: str, *, severity: float = 1.0, parts: int | None = None) -> Fault:
        """Add a fault by hand, from the next part that is not drawn yet.

        Args:
            kind: one of `FAULTS`.
            severity: as in `Fault`.
            parts: how many parts until it is repaired; None for never.

        Raises:
            ValueError: as for the machine itself, and if that fault is in force already.
        """
        start = self._draws + 1
        fault = Fault(kind=kind, start_part=start, end_part=None if parts is None else start + parts, severity=severity)
        _ordered(self.name, self.FAULTS, (*self.faults, fault))
        self.faults = (*self.faults, fault)  # ids of faults are by place: a new one comes last
        return fault

    def repair(self) -> list[str]:
        """End every fault in force with the next part that is not drawn yet; one that begins there never was: kinds."""
        n = self._draws + 1
        ended, kept = [], []
        for fault in self.faults:
            if fault.start_part < n and (fault.end_part is None or fault.end_part > n):
                ended.append(fault.kind)
                changed = msgspec.structs.replace(fault, end_part=n)
                if fault in self._open:
                    self._open[changed] = self._open.pop(fault)
                kept.append(changed)
            elif fault.start_part == n:
                ended.append(fault.kind)
            else:
                kept.append(fault)
        self.faults = tuple(kept)
        return ended

    def made(self, n: int) -> dict[str, float]:
        """The true dimensions of part `n`, drawn now if need be; for the machine that comes after.

        Raises:
            KeyError: if the part was made so long ago that it is forgotten (1,000 parts).
        """
        while self._draws < n:
            self._draw()
        return self._history[n]

    def lot(self, n: int) -> int:
        """The number of the lot that part `n` is made of; 0 without a context."""
        return (n - 1) // self.context.lot_parts if self.context else 0

    def of_lot(self, n: int, spread: float) -> float:
        """How part `n`'s lot differs from the nominal: normal, the same for the whole lot; 0 without a context."""
        if not self.context:
            return 0.0
        key = zlib.crc32(self.name.encode())
        return float(np.random.default_rng([self._seed, key, 2, self.lot(n)]).normal(0.0, spread))

    def slow(self, key: str, spread: float, cycles: float = 25.0) -> NDArray[np.float64]:
        """A level that wanders slowly: a first-order lag of `cycles` cycles behind a random input, (ticks,).

        Its standard deviation settles at `spread`: an AR(1) process of parameter a = exp(-1/cycles) and input s has
        the variance s² (1-a)/(1+a) (G. Box, G. Jenkins, "Time Series Analysis", 3.2).
        """
        a = math.exp(-1.0 / cycles)
        level = float(self.rng.normal(0.0, spread)) * math.sqrt((1.0 + a) / (1.0 - a))
        decay = np.exp(-np.arange(1, self.ticks + 1) / (cycles * self.ticks))
        values: NDArray[np.float64] = decay * self._slow.get(key, 0.0) + (1.0 - decay) * level
        self._slow[key] = float(values[-1])
        return values

    def active(self, n: int) -> dict[str, Active]:
        """The faults that act on part `n`."""
        return {
            f.kind: Active(f.severity, n - f.start_part)
            for f in self.faults
            if f.start_part <= n and (f.end_part is None or n < f.end_part)
        }

    def _downstream(self, fault: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Who feels a fault further on the line, and in which signals."""
        felt = self.FELT.get(fault, {})
        found = []
        after = self.follower
        while after:
            if after.KIND in felt:
                found.append((after.name, felt[after.KIND]))
            after = after.follower
        return tuple(found)

    def follow(self, upstream: "Machine") -> None:
        """Make part `n` of this machine from part `n` of another; before the first step."""
        self.upstream, upstream.follower = upstream, self

    def _draw(self) -> None:
        n = self._draws + 1
        made = self._cycle(n, self.active(n))
        self._draws = n
        self._drawn.append((n, made))
        self._history[n] = made.dimensions
        self._history.pop(n - _REMEMBERED, None)

    def _begin(self, n: int, begin: int) -> None:
        if self._draws < n:
            self._draw()
        _, made = self._drawn.popleft()
        ticks: list[list[Reading]] = [[] for _ in range(self.ticks)]
        ticks[0] += [Reading(PART_ID.name, begin, self.part_id(n)), Reading(STATE.name, begin, IDLE)]
        ticks[0] += [Reading(signal, begin, text) for signal, text in self._rides_along(n, begin)]
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

    def _rides_along(self, n: int, begin: int) -> list[tuple[str, str]]:
        """Lot, shift and person, where they differ from those of the last part."""
        if not self.context:
            return []
        context = self.context

        def all_of(part: int, at: int) -> list[tuple[str, str]]:
            number = int(at // round(context.shift * 1e9))
            return [
                ("material_lot", f"L{self.lot(part) + 1:04d}"),
                ("shift", _SHIFTS[number % len(_SHIFTS)]),
                ("operator", context.people[(number + zlib.crc32(self.name.encode())) % len(context.people)]),
            ]

        now = all_of(n, begin)
        return now if n == 1 else sorted(set(now) - set(all_of(n - 1, begin - self.ticks * self.period)))

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
