"""Times as payloads write them, to nanoseconds since 1970 UTC."""

import re
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

EARLIEST = 946_684_800_000_000_000  # 2000-01-01: before it, a clock was never set
_DAY = 86_400_000_000_000
_MANY = 12  # times that are worth a column
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)


class TimeError(ValueError):
    """A time that cannot be read, or cannot be true."""


class MixedUnitsError(Exception):
    """Times of several units in one column."""


def to_ns(raw: Any, now: int) -> int:
    """Nanoseconds of an epoch in s, ms, us or ns (told apart by magnitude) or of an RFC 3339 text.

    Whole numbers and text are exact; a float is rounded to microseconds, since it holds no more.

    Args:
        raw: what the payload holds.
        now: the time of arrival, ns.

    Raises:
        TimeError: if it is none of these, before 2000, or more than a day after `now`.
    """
    kind = type(raw)
    if kind is int:
        ns = int(raw) * _unit(raw)
    elif kind is float:
        ns = _fractional(raw)
    elif kind is str:
        ns = _text(raw)
    else:
        raise TimeError(f"the time is {_named(raw)}; epoch or RFC 3339 is needed")
    if not EARLIEST <= ns <= now + _DAY:
        raise TimeError(f"the time {str(raw)[:40]} is {'before 2000' if ns < EARLIEST else 'more than a day ahead'}")
    return ns


def all_to_ns(raw: list[Any], now: int) -> "array[int]":
    """As `to_ns` for each of `raw`, in one go where all are numbers of one kind and one unit.

    None is the time of arrival: `now`, and a nanosecond more for each place in the list.

    Raises:
        TimeError: for the first that is not a time.
    """
    kinds = set(map(type, raw))
    if len(raw) >= _MANY and kinds in ({float}, {int}):
        try:
            return column_to_ns(array("d" if kinds == {float} else "q", raw), now)
        except (MixedUnitsError, OverflowError):
            pass
    if kinds == {type(None)}:
        return array("q", range(now, now + len(raw)))
    return array("q", [now + i if each is None else to_ns(each, now) for i, each in enumerate(raw)])


def column_to_ns(raw: "array[float] | array[int]", now: int) -> "array[int]":
    """As `to_ns` for each of a column of floats or of whole numbers, not empty.

    Raises:
        MixedUnitsError: if they have several units: take them one by one.
        TimeError: if there is one that is not a time.
    """
    column: NDArray[Any] = np.frombuffer(raw, np.float64 if raw.typecode == "d" else np.int64)
    first, last = column.min().item(), column.max().item()
    unit = _unit(first)
    if unit != _unit(last):
        raise MixedUnitsError
    to_ns(first, now)  # of the earliest and the latest, so of all between them
    to_ns(last, now)
    if raw.typecode == "d":
        column = np.rint(_in_microseconds(column, unit)).astype(np.int64)
        unit = 1000
    return array("q", (column * unit).tobytes())


def _in_microseconds(raw: NDArray[np.float64], unit: int) -> NDArray[np.float64]:
    """Bit for bit what `_fractional` does before it rounds."""
    if unit == 1:
        return raw / 1e3
    return raw if unit == 1_000 else raw * (unit / 1e3)


def _unit(raw: float) -> int:
    """Nanoseconds in the unit of an epoch, told by its magnitude."""
    if raw < 100_000_000_000:
        return 1_000_000_000
    if raw < 100_000_000_000_000:
        return 1_000_000
    return 1_000 if raw < 100_000_000_000_000_000 else 1


def _fractional(raw: float) -> int:
    if not -1e300 < raw < 1e300:
        raise TimeError("the time is not a finite number")
    if raw < 1e11:
        return round(raw * 1e6) * 1000
    if raw < 1e14:
        return round(raw * 1e3) * 1000
    if raw < 1e17:
        return round(raw) * 1000
    return round(raw / 1e3) * 1000


def _text(raw: str) -> int:
    match = _RFC3339.fullmatch(raw)
    if match is None:
        raise TimeError(f"the time {raw[:40]!r} is not RFC 3339 (such as 2026-11-23T20:00:00.5Z, with its zone)")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    leap = second == 60  # a leap second is the first instant of the next minute
    try:
        stamp = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    except ValueError as e:
        raise TimeError(f"the time {raw[:40]!r} does not exist: {e}") from None
    seconds = (stamp - _EPOCH) // timedelta(seconds=1) + leap
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds -= offset if match[8] == "+" else -offset
    return seconds * 1_000_000_000 + (0 if leap else int((match[7] or "0").ljust(9, "0")))


def _named(raw: Any) -> str:
    """What JSON calls the type of `raw`."""
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(raw), "a number")
