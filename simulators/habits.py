"""Bad habits of protocols, on demand: what real machines do to those who read them.

Habits of readings act on what one machine sends, deterministic by seed, whatever the speed. Habits of the server act on
the OPC UA server as a whole.
"""

import fnmatch
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from simulators.machines import Reading

READING_HABITS: Final[Mapping[str, str]] = {
    "bad_storm": "each reading is BadSensorFailure with a probability of `severity` / 2",
    "uncertain_storm": "each reading is UncertainSensorNotAccurate with a probability of `severity` / 2",
    "wrong_clock": "the machine's clock is `severity` * 90 s ahead",
    "missing_time": "readings come without a time of their own",
    "duplicates": "each reading is sent once more with a probability of `severity` / 2",
    "late": "each reading is held back `severity` * 2 s with a probability of a quarter, and comes after newer ones",
    "type_change": "numbers come as text",
    "silence": "the machine goes on, its connection is up, and nothing is said",
}
SERVER_HABITS: Final[Mapping[str, str]] = {
    "namespace_order": "the OPC UA server restarts, with its namespaces at other indexes",
    "reconnect_storm": "every connection to the OPC UA server is cut, every `severity` * 2 s",
    "slow_server": "the OPC UA server takes `severity` * 0.3 s for each answer",
    "expiring_certificate": "the OPC UA server's certificate ends within a day, from the start on",
}
_BAD_SENSOR, _NOT_ACCURATE = 0x808C0000, 0x40930000
_AHEAD, _HELD, _CUT = 90_000_000_000, 2_000_000_000, 2_000_000_000  # ns


class Habit(msgspec.Struct, frozen=True, kw_only=True):
    """A habit, and when.

    Attributes:
        kind: one of `READING_HABITS` or `SERVER_HABITS`.
        start: ns of simulated time since the beginning.
        end: the same; None for never.
        severity: 1 is as the tables above say.
        machine: whose readings, a glob.
    """

    kind: str
    start: int = 0
    end: int | None = None
    severity: float = 1.0
    machine: str = "*"

    def at(self, since: int) -> bool:
        """Whether it acts, so many ns after the beginning."""
        return self.start <= since and (self.end is None or since < self.end)


class ReadingHabits:
    """The habits of one machine's readings.

    Args:
        habits: of all machines.
        machine: its name.
        seed: of the scenario.
        begin: the beginning, ns.
    """

    def __init__(self, habits: Sequence[Habit], machine: str, seed: int, begin: int) -> None:
        mine = [h for h in habits if h.kind in READING_HABITS and fnmatch.fnmatchcase(machine, h.machine)]
        self._habits = tuple(
            (h, np.random.default_rng([seed, zlib.crc32(machine.encode()), 3, i])) for i, h in enumerate(mine)
        )
        self._begin = begin
        self._held: list[tuple[int, Reading]] = []  # until when, and what

    def apply(self, readings: Sequence[Reading], now: int) -> list[Reading]:
        """What is really sent of readings; `now` is the simulated time, ns, for those that were held back."""
        if not self._habits:
            return list(readings)
        sent: list[Reading] = []
        for reading in readings:
            self._release(reading.ts, sent)
            sent.extend(self._one(reading))
        self._release(now, sent)
        return sent

    def flush(self) -> list[Reading]:
        """What is still held back, when production ends."""
        held, self._held = [reading for _, reading in self._held], []
        return held

    def _release(self, now: int, sent: list[Reading]) -> None:
        while self._held and self._held[0][0] <= now:
            sent.append(self._held.pop(0)[1])

    def _one(self, reading: Reading) -> list[Reading]:
        since = reading.ts - self._begin
        copies = 1
        for habit, rng in self._habits:
            if not habit.at(since):
                continue
            luck = float(rng.random())
            if habit.kind == "silence":
                return []
            if habit.kind == "late" and luck < 0.25:
                due = reading.ts + round(_HELD * habit.severity)
                self._held.append((due, reading))
                self._held.sort(key=lambda item: item[0])
                return []
            if habit.kind == "duplicates":
                copies += luck < habit.severity / 2
            reading = _changed(reading, habit, luck)
        return [reading] + [reading._replace(copy=True)] * (copies - 1)


def _changed(reading: Reading, habit: Habit, luck: float) -> Reading:
    hit = luck < habit.severity / 2
    if habit.kind == "bad_storm" and hit:
        return reading._replace(status=_BAD_SENSOR)
    if habit.kind == "uncertain_storm" and hit:
        return reading._replace(status=_NOT_ACCURATE)
    if habit.kind == "wrong_clock":
        return reading._replace(ts=reading.ts + round(_AHEAD * habit.severity))
    if habit.kind == "missing_time":
        return reading._replace(timed=False)
    if habit.kind == "type_change" and not isinstance(reading.value, str):
        return reading._replace(value=repr(reading.value))
    return reading


def cuts(habit: Habit, since: int) -> int:
    """How many times a `reconnect_storm` has cut connections, so many ns after the beginning."""
    last = since if habit.end is None else min(since, habit.end)
    return max(0, 1 + (last - habit.start) // max(1, round(_CUT * habit.severity))) if last >= habit.start else 0
