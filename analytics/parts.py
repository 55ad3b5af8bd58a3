"""Tells the parts of one machine apart: start, end and genealogy, in event time.

A part lasts from the reading that starts it, inclusive, to the reading that starts the next, exclusive: a reading with
the very time of the change belongs to the new part. The first part seen may have started before us: it is not complete.
"""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.config import MOST_NESTED, PartConfig, span_ns
from analytics.partbook import Fact
from analytics.phases import Phases
from analytics.windows import Accumulator
from fieldlab.model import Batch, Place, SignalInfo
from fieldlab.model.status import is_good


class Part(msgspec.Struct):
    """The part that is being made.

    Attributes:
        id: its id; empty while no part is being made.
        start: event time, ns.
        complete: whether its start was seen.
        genealogy: signal → the values that it had during the part, in order.
        members: the ids of parts that are made at once, if they are; `id` is that of the sheet or load then.
        facts: what was said of it while it was made.
    """

    id: str
    start: int
    complete: bool
    genealogy: dict[str, list[str]] = {}
    members: list[str] = []
    facts: list[Fact] = []

    @property
    def ids(self) -> list[str]:
        """The ids of all parts that are made at once; none while nothing is made."""
        return self.members or ([self.id] if self.id else [])


class PartTracker:
    """Parts of one machine."""

    def __init__(self, config: PartConfig, place: Place) -> None:
        self.config = config
        self.place = place
        self.longest_ns = span_ns(config.longest)
        self.accumulator = Accumulator()
        self.slots: dict[int, int] = {}  # signal index → slot
        self.phase_slots: dict[str, dict[int, int]] = {}  # phase → signal index → slot of its readings in that phase
        self.phases = Phases()
        self.part: Part | None = None  # None until the watched signal has had a value
        self.riding: dict[str, str] = {}  # genealogy signal → its value now
        self.said: dict[str, str] = {}  # signal that tells events → part and what it said of it last
        self.since: int | None = None  # when the part, or our waiting for the first, began
        self.warned = False
        self._told: dict[str, int] = {}  # series → time of its newest row
        self._raw: str | None = None
        self._timeline: list[tuple[int, str]] = []  # (start, id) of the parts that the readings at hand belong to

    def slot(self, signal: int, phase: str = "") -> int:
        """The slot of a signal's readings in the part, or in one phase of it; a new one if there is none."""
        count = len(self.slots) + sum(map(len, self.phase_slots.values()))
        slots = self.phase_slots.setdefault(phase, {}) if phase else self.slots
        found = slots.setdefault(signal, count)
        self.accumulator.grow(count + 1)
        return found

    def cut(self, rows: Batch, watched: int, info: SignalInfo) -> list[Part]:
        """The parts that start in these readings, in order; none of them is entered yet.

        Args:
            rows: readings of the machine, sorted.
            watched: index of the signal that tells parts apart.
            info: what is known about it.
        """
        del self._timeline[:-1]
        started: list[Part] = []
        for row in np.flatnonzero((rows.signal == watched) & is_good(rows.status)).tolist():
            raw = text_at(rows, row, info)
            if raw is None or raw == self._raw:
                continue
            first, self._raw = self._raw is None, raw
            part = self._start(raw, int(rows.time[row]), complete=not first)
            before = started[-1] if started else self.part
            if before is not None and before.id == part.id:
                continue
            if started and started[-1].start == part.start:
                started.pop()  # two changes at one time: the later one holds
                self._timeline.pop()
            started.append(part)
            self._timeline.append((part.start, part.id))
        return started

    def part_at(self, time: int) -> str:
        """The part that a moment of the readings at hand belongs to."""
        return next((name for start, name in reversed(self._timeline) if start <= time), "")

    def _start(self, raw: str, time: int, *, complete: bool) -> Part:
        machine, stamp = self.place.machine, datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y%m%dT%H%M%S")
        stamp = f"{stamp}.{time % 10**9 // 10**6:03d}Z"
        if self.config.state:
            running = raw == self.config.state
            return Part(f"{machine}-{stamp}" if running else "", time, complete or not running)
        if self.config.counter:
            return Part(f"{machine}-{raw}", time, complete)
        if self.config.job:
            return Part(f"{raw}-{stamp}" if raw else "", time, complete)
        if self.config.split:
            ids = dict.fromkeys(name for piece in raw.split(self.config.split) if (name := piece.strip()))
            return Part(raw if ids else "", time, complete, members=list(ids)[:MOST_NESTED])
        return Part(raw, time, complete)

    def nest(self, part: Part) -> None:
        """Give the parts of one sheet their ids, once it is known how many there are."""
        nested = self.config.nested
        if nested and part.id:
            told = str(nested) if isinstance(nested, int) else self.riding.get(nested, "")
            count = int(float(told)) if told.replace(".", "", 1).isdigit() else 0
            part.members = [f"{part.id}-{i + 1}" for i in range(min(count, MOST_NESTED))]

    def apart(self, series: str, time: int, used: AbstractSet[int] = frozenset()) -> int:
        """`time`, or one nanosecond after the newest row of the series: two at one time would be one in a store.

        Args:
            series: what shares its times.
            time: event time, ns.
            used: times that other rows of the series have, too.
        """
        time = max(time, self._told.get(series, time - 1) + 1)
        while time in used:
            time += 1
        self._told[series] = time
        return time

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "told": self._told,
            "slots": list(self.slots.items()),
            "phase_slots": [(phase, list(slots.items())) for phase, slots in self.phase_slots.items()],
            "phases": self.phases.save(),
            "accumulator": self.accumulator.save(),
            "part": msgspec.to_builtins(self.part),
            "riding": self.riding,
            "said": self.said,
            "since": self.since,
            "warned": self.warned,
            "raw": self._raw,
            "timeline": self._timeline[-1:],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.slots = {int(signal): int(slot) for signal, slot in saved["slots"]}
        self.phase_slots = {phase: {int(i): int(slot) for i, slot in slots} for phase, slots in saved["phase_slots"]}
        self.phases.load(saved["phases"])
        self.accumulator.load(saved["accumulator"])
        self.part = msgspec.convert(saved["part"], Part | None)
        self.riding, self.since, self.warned = dict(saved["riding"]), saved["since"], saved["warned"]
        self._told, self.said = dict(saved["told"]), dict(saved["said"])
        self._raw, self._timeline = saved["raw"], [(int(t), str(name)) for t, name in saved["timeline"]]


def text_at(rows: Batch, row: int, info: SignalInfo) -> str | None:
    """What a Good reading says, as text: its text, its state's name, or its number; None if it says nothing."""
    at = np.searchsorted(rows.text_row, row)
    if at < len(rows.text_row) and rows.text_row[at] == row:
        return rows.text[int(at)]
    at = np.searchsorted(rows.integer_row, row)
    if at < len(rows.integer_row) and rows.integer_row[at] == row:
        return str(int(rows.integer[at]))
    value = float(rows.value[row])
    if not np.isfinite(value):
        return None
    number = str(int(value)) if value.is_integer() else repr(value)
    return info.states.get(number, number)


def slots_of(slots: dict[int, int], size: int) -> NDArray[np.intp]:
    """Signal index → slot, -1 for none, (size,)."""
    table = np.full(size, -1, np.intp)
    for signal, slot in slots.items():
        table[signal] = slot
    return table
