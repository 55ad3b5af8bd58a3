"""The table `[[oee]]`: what a machine's states mean, and when it is to produce."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from analytics.oee import Category, Span

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SHIFT: Final = re.compile(r"(?:([A-Za-z]{3})(?:\s*-\s*([A-Za-z]{3}))?\s+)?(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)")
_MOST_DAYS: Final = 3_700  # ten years of shifts


class OeeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[oee]]`. A machine with a signal `state` needs none, if its states have usual names.

    Attributes:
        machine: glob over machines; the first table that fits a machine counts.
        state: the signal that says what the machine does.
        reason: the signal that says why it stands.
        running: states in which it produces.
        idle: states in which it could, and does not.
        down: states in which it has failed.
        breaks: states that are no planned time, such as a pause.
        cycle: planned time a part, s. Absent: what the fastest tenth of the parts takes.
        shifts: planned time, such as `Mon-Fri 06:00-14:30`; a day's end before its start is on the next. None: always.
        zone: of the shifts, such as `Europe/Amsterdam`.
    """

    machine: str = "*"
    state: str = "state"
    reason: str = "stop_reason"
    running: tuple[str, ...] = (
        "running", "executing", "execute", "active", "busy", "printing", "producing", "processing", "automatic",
    )  # fmt: skip
    idle: tuple[str, ...] = (
        "idle", "ready", "waiting", "standby", "operational", "starved", "blocked", "setup", "stopped", "finished",
        "complete", "held", "suspended", "interrupted",
    )  # fmt: skip
    down: tuple[str, ...] = (
        "down", "error", "fault", "failed", "alarm", "aborted", "emergency", "maintenance", "broken",
    )  # fmt: skip
    breaks: tuple[str, ...] = ("break", "pause", "paused", "off", "off shift")
    cycle: float | None = None
    shifts: tuple[str, ...] = ()
    zone: str = "UTC"

    @property
    def categories(self) -> dict[str, Category]:
        """State, in small letters → what it means."""
        found: dict[str, Category] = {}
        each: tuple[tuple[Category, tuple[str, ...]], ...] = (
            ("break", self.breaks), ("idle", self.idle), ("down", self.down), ("running", self.running)
        )  # fmt: skip
        for category, names in each:
            found |= {name.strip().lower(): category for name in names}
        return found

    def planned(self, start: int, end: int) -> list[Span]:
        """Planned time in [start, end), ns, ascending, without overlap; all of it if there are no shifts."""
        if not self.shifts:
            return [(start, end)] if end > start else []
        zone = ZoneInfo(self.zone)
        shifts = [_parsed(shift) for shift in self.shifts]
        day = datetime.fromtimestamp(start / 1e9, UTC).astimezone(zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(end / 1e9, UTC).astimezone(zone).date()
        found: list[Span] = []
        for _ in range(_MOST_DAYS):
            if day > last:
                break
            for days, begin, stop in shifts:
                if day.weekday() in days:
                    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001  the zone follows, by the wall clock
                    over = stop + timedelta(days=1) if stop <= begin else stop
                    a, b = ((midnight + t).replace(tzinfo=zone).timestamp() for t in (begin, over))
                    found.append((max(round(a * 1e9), start), min(round(b * 1e9), end)))
            day += timedelta(days=1)
        merged: list[Span] = []
        for a, b in sorted(span for span in found if span[1] > span[0]):
            if merged and a <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(b, merged[-1][1])
            else:
                merged.append((a, b))
        return merged


def errors(tables: tuple[OeeConfig, ...]) -> Iterator[tuple[str, str]]:
    """What is wrong that types cannot say: (dotted key, what and what to do)."""
    for i, table in enumerate(tables):
        for shift in table.shifts:
            try:
                _parsed(shift)
            except ValueError as e:
                yield f"oee[{i}].shifts", str(e)
        try:
            ZoneInfo(table.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield f"oee[{i}].zone", f"{table.zone!r} is no time zone; write it as Europe/Amsterdam"
        if table.cycle is not None and not table.cycle > 0:
            yield f"oee[{i}].cycle", "must be above 0 seconds a part"


def _parsed(shift: str) -> tuple[frozenset[int], timedelta, timedelta]:
    """Days of the week, start and end."""
    found = _SHIFT.fullmatch(shift.strip())
    words = f'{shift!r} is not understood; write it as "Mon-Fri 06:00-14:30", "Sat 06:00-12:00" or "22:00-06:00"'
    if found is None:
        raise ValueError(words)
    first, last, *clock = found.groups()
    try:
        a = 0 if first is None else _DAYS.index(first.lower())
        b = 6 if first is None else _DAYS.index((last or first).lower())
    except ValueError:
        raise ValueError(words) from None
    hour, minute, to_hour, to_minute = map(int, clock)
    if max(hour, to_hour) > 24 or max(minute, to_minute) > 59:
        raise ValueError(words)
    days = frozenset(range(a, b + 1)) if a <= b else frozenset(range(7)) - frozenset(range(b + 1, a))
    return days, timedelta(hours=hour, minutes=minute), timedelta(hours=to_hour, minutes=to_minute)
