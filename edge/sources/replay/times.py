"""Times as recordings write them, to nanoseconds since 1970 UTC."""

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMATS = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S", "%d-%b-%Y %H:%M:%S")
NO_TIME = -(2**63)


def to_ns(cells: list[str], *, decimal_comma: bool = False) -> NDArray[np.int64]:
    """Nanoseconds of each cell; `NO_TIME` where it is no time.

    A number is an epoch in s, ms, us or ns, told apart by magnitude; smaller ones are seconds since the start of the
    recording. Text is ISO 8601, or day first; without a zone it is UTC.
    """
    return np.array([_ns(cell.strip(), decimal_comma=decimal_comma) for cell in cells], np.int64)


def strictly_ascending(times: NDArray[np.int64], last: int) -> tuple[NDArray[np.int64], int]:
    """`times` with whole nanoseconds added where a row has the time of the one before; and how many rows that were.

    A time that goes backwards stays as it is: the judgement calls it late.
    """
    moved = 0
    out = times.copy()
    for i in np.flatnonzero(np.diff(times, prepend=last) == 0).tolist():
        if times[i] != NO_TIME:
            out[i] = (out[i - 1] if i else last) + 1
            moved += 1
    return out, moved


def _ns(text: str, *, decimal_comma: bool) -> int:
    if not text:
        return NO_TIME
    try:
        return _epoch(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        pass
    try:
        stamp: datetime | None = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        stamp = _other(text)
    if stamp is None:
        return NO_TIME
    since = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)) - _EPOCH
    ns = since // timedelta(microseconds=1) * 1000
    return ns if abs(ns) < 2**62 else NO_TIME


def _epoch(text: str) -> int:
    value = int(text) if text.lstrip("+-").isdigit() else float(text)
    for top, unit in ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3), (4e18, 1)):
        if abs(value) < top:
            return value * unit if isinstance(value, int) else round(value * unit / 1000) * 1000
    return NO_TIME


def _other(text: str) -> datetime | None:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
