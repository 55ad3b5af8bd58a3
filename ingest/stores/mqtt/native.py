"""Readings on the native topic: `PREFIX/site/area/line/machine/signal`.

One reading is `{"value": 12.3, "ts": 1763900000.123, "status": 0}`, without a value where it is Bad; Good ones of one
signal that come together are `{"value": [..], "ts": [..]}`. Times are seconds, written with as many decimals as they
have: exact to the nanosecond for a reader that takes decimals, to the microsecond for one that takes floats.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, SignalTable
from fieldlab.model.status import BAD

MOST = 1_000  # readings in a message
_HEAD = 100  # bytes of a message beside its topic, values and times
_NUMBER, _TIME = 25, 24  # bytes at most, with what parts it from the next


class Told(NamedTuple):
    """A message about readings of one signal.

    Attributes:
        signal: whose.
        topic: where it goes.
        payload: what it says.
        readings: how many.
        first: the earliest time, ns.
        last: the latest time, ns.
    """

    signal: int
    topic: str
    payload: bytes
    readings: int
    first: int
    last: int


def topic(prefix: str, signals: SignalTable, signal: int) -> str:
    """Where the readings of a signal go."""
    return f"{prefix}/{signals[signal].path}"


def told(batch: Batch, signals: SignalTable, prefix: str, max_packet: int) -> Iterator[Told]:
    """The messages about a batch, signal by signal, the readings of each in order.

    Args:
        batch: the readings.
        signals: what its indices mean.
        prefix: the root of the topics.
        max_packet: bytes of a message; an array is cut before it comes near, a single reading may exceed it.
    """
    texts: dict[int, Any] = dict(batch.texts())
    texts |= dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    plain = (batch.status == 0) & np.isfinite(batch.value)
    plain[batch.text_row[batch.status[batch.text_row] == 0]] = True
    order = np.argsort(batch.signal, kind="stable")
    sorted_signals = batch.signal[order]
    for rows in np.split(order, np.flatnonzero(np.diff(sorted_signals)) + 1) if len(order) else ():
        signal = int(batch.signal[rows[0]])
        where = topic(prefix, signals, signal)
        for run in _runs(rows, plain[rows]):
            values = [texts.get(row, value) for row, value in zip(run.tolist(), batch.value[run].tolist(), strict=True)]
            times, statuses = batch.time[run].tolist(), batch.status[run].tolist()
            for start, end in _cuts(values, max_packet - len(where.encode()) - _HEAD):
                part = slice(start, end)
                if end - start == 1:
                    body = one(values[start], times[start], statuses[start])
                else:
                    body = many(values[part], times[part])
                yield Told(signal, where, body, end - start, min(times[part]), max(times[part]))


def one(value: float | str, time: int, status: int) -> bytes:
    """The payload of one reading; a Bad one has no value."""
    if status & BAD:
        return b'{"ts": %s, "status": %d}' % (seconds(time), status)
    return b'{"value": %s, "ts": %s, "status": %d}' % (msgspec.json.encode(value), seconds(time), status)


def many(values: list[Any], times: list[int]) -> bytes:
    """The payload of several Good readings."""
    return b'{"value": %s, "ts": [%s]}' % (msgspec.json.encode(values), b",".join(map(seconds, times)))


def seconds(time: int) -> bytes:
    """`time`, in ns, as seconds: an exact decimal with at least one digit behind the point."""
    whole, rest = divmod(abs(time), 1_000_000_000)
    decimals = b"%09d" % rest
    return b"%s%d.%s" % (b"-" if time < 0 else b"", whole, decimals.rstrip(b"0") or b"0")


def _runs(rows: NDArray[np.intp], plain: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Stretches of plain readings, and every other reading alone, in order."""
    if plain.all():
        yield rows
        return
    apart = ~plain
    edges = np.flatnonzero(apart[1:] | apart[:-1]) + 1
    yield from np.split(rows, edges)


def _cuts(values: list[Any], room: int) -> Iterator[tuple[int, int]]:
    """Where to cut a stretch so that no array has too many readings or bytes."""
    start = size = 0
    for i, value in enumerate(values):
        this = _TIME + (len(msgspec.json.encode(value)) if isinstance(value, str) else _NUMBER)
        if i > start and (i - start >= MOST or size + this > room):
            yield start, i
            start, size = i, 0
        size += this
    yield start, len(values)
