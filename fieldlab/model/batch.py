"""Readings in columns. One Python object per reading on the hot path is a defect."""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model.status import BAD_OUT_OF_RANGE, is_bad

_NO_ROWS: NDArray[np.uint32] = np.empty(0, np.uint32)
_NO_INTEGERS: NDArray[np.int64] = np.empty(0, np.int64)


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Readings as columns of one length n; do not write into them once built.

    Attributes:
        signal: index into a `SignalTable`, (n,) u32.
        time: nanoseconds since 1970 UTC, (n,) i64.
        value: (n,) f64; NaN where there is no number (text, or a Bad status).
        status: OPC UA StatusCode, (n,) u32; 0 is Good.
        text_row: rows that carry text, ascending, (k,) u32.
        text: the text of those rows, k strings.
        integer_row: rows whose integer a float cannot hold exactly (beyond 2**53), ascending, (m,) u32.
        integer: the exact integers of those rows, (m,) i64; `value` holds the nearest float.
    """

    signal: NDArray[np.uint32]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    status: NDArray[np.uint32]
    text_row: NDArray[np.uint32] = _NO_ROWS
    text: tuple[str, ...] = ()
    integer_row: NDArray[np.uint32] = _NO_ROWS
    integer: NDArray[np.int64] = _NO_INTEGERS

    def __len__(self) -> int:
        return len(self.signal)

    @classmethod
    def of(
        cls,
        signal: Sequence[int] | NDArray[np.uint32],
        time: Sequence[int] | NDArray[np.int64],
        value: Sequence[float] | NDArray[np.float64],
        status: Sequence[int] | NDArray[np.uint32] | None = None,
    ) -> Self:
        """Build a batch of numbers, enforcing the rules of ingest/README.md, "Measurements".

        A NaN or infinity that is not Bad becomes BadOutOfRange without a value; a Bad status has no value.

        Raises:
            ValueError: if the columns differ in length.
        """
        signals = np.ascontiguousarray(signal, np.uint32)
        times = np.ascontiguousarray(time, np.int64)
        values = np.array(value, np.float64)
        statuses = np.zeros(len(signals), np.uint32) if status is None else np.array(status, np.uint32)
        if not len(signals) == len(times) == len(values) == len(statuses):
            raise ValueError("the columns of a batch must have one length")
        bad = is_bad(statuses)
        statuses[~np.isfinite(values) & ~bad] = BAD_OUT_OF_RANGE
        values[is_bad(statuses)] = np.nan
        return cls(signals, times, values, statuses)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The readings at `rows` (indices in any order, or a mask of length n), in that order."""
        chosen: NDArray[np.intp] = np.arange(len(self))[rows]
        text_row, text = _take_side(self.text_row, np.arange(len(self.text)), chosen, len(self))
        integer_row, integer = _take_side(self.integer_row, np.arange(len(self.integer)), chosen, len(self))
        return type(self)(
            self.signal[chosen],
            self.time[chosen],
            self.value[chosen],
            self.status[chosen],
            text_row,
            tuple(self.text[i] for i in text),
            integer_row,
            self.integer[integer],
        )

    def check(self) -> None:
        """See that the columns fit each other.

        Raises:
            ValueError: if they differ in length, or a side column names a row that is not there.
        """
        n = len(self.signal)
        if not n == len(self.time) == len(self.value) == len(self.status):
            raise ValueError("the columns of a batch must have one length")
        for rows, entries in ((self.text_row, len(self.text)), (self.integer_row, len(self.integer))):
            if len(rows) != entries or (entries and int(rows.max()) >= n):
                raise ValueError("a side column of a batch does not fit its rows")

    def texts(self) -> dict[int, str]:
        """Row → text, for the rows that carry text."""
        return dict(zip(self.text_row.tolist(), self.text, strict=True))


def _take_side(
    rows: NDArray[np.uint32], entries: NDArray[np.intp], chosen: NDArray[np.intp], n: int
) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Rows and entries of a side column after `chosen` of n rows were taken."""
    if len(rows) == 0:
        return _NO_ROWS, entries[:0]
    entry_of_row = np.full(n, -1, np.intp)
    entry_of_row[rows] = entries
    taken = entry_of_row[chosen]
    kept = np.flatnonzero(taken >= 0)
    return kept.astype(np.uint32), taken[kept]


def concat(batches: Sequence[Batch]) -> Batch:
    """One batch of all readings, in order."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return Batch.of([], [], [])
    starts = np.cumsum([0, *(len(b) for b in batches[:-1])]).tolist()
    return Batch(
        np.concatenate([b.signal for b in batches]),
        np.concatenate([b.time for b in batches]),
        np.concatenate([b.value for b in batches]),
        np.concatenate([b.status for b in batches]),
        np.concatenate([b.text_row + np.uint32(s) for b, s in zip(batches, starts, strict=True)]),
        tuple(t for b in batches for t in b.text),
        np.concatenate([b.integer_row + np.uint32(s) for b, s in zip(batches, starts, strict=True)]),
        np.concatenate([b.integer for b in batches]),
    )


class BatchBuilder:
    """Collects readings one at a time, where a source cannot give columns. Not for the hot path."""

    def __init__(self) -> None:
        self._signal: list[int] = []
        self._time: list[int] = []
        self._value: list[float] = []
        self._status: list[int] = []
        self._text_row: list[int] = []
        self._text: list[str] = []
        self._integer_row: list[int] = []
        self._integer: list[int] = []

    def __len__(self) -> int:
        return len(self._signal)

    def add(self, signal: int, time: int, value: float | bool | str | None, status: int = 0) -> None:
        """Add a reading: a number, a boolean (0 or 1), text, or None for a status alone.

        An integer outside i64 is kept as its nearest float.

        Raises:
            ValueError: if `time` is outside i64 (the years 1677 to 2262): nothing was added.
        """
        if not -(2**63) <= time < 2**63:
            raise ValueError(f"the time {time} ns is outside the years 1677 to 2262")
        row = len(self._signal)
        self._signal.append(signal)
        self._time.append(time)
        self._status.append(status)
        if isinstance(value, str):
            self._value.append(np.nan)
            if not status & 0x80000000:
                self._text_row.append(row)
                self._text.append(value)
            return
        if isinstance(value, int) and abs(value) > 2**53 and -(2**63) <= value < 2**63 and not status & 0x80000000:
            self._integer_row.append(row)
            self._integer.append(value)
        self._value.append(np.nan if value is None else _nearest_float(value))

    def build(self) -> Batch:
        """The readings so far, with the rules of `Batch.of`; the builder is empty afterwards."""
        text_row = np.asarray(self._text_row, np.uint32)
        values = np.asarray(self._value, np.float64)
        statuses = np.asarray(self._status, np.uint32)
        values[text_row] = 0.0  # text is a value: it must not be taken for a number that is missing
        numbers = Batch.of(self._signal, self._time, values, statuses)
        numbers.value[text_row] = np.nan
        batch = Batch(
            numbers.signal,
            numbers.time,
            numbers.value,
            numbers.status,
            text_row,
            tuple(self._text),
            np.asarray(self._integer_row, np.uint32),
            np.asarray(self._integer, np.int64),
        )
        self.__init__()  # type: ignore[misc]  # starts afresh
        return batch


def _nearest_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
