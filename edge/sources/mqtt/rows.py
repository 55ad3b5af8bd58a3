"""Readings while they are gathered: plain lists, which Python fills fastest, then one batch."""

import numpy as np

from fieldlab.model import Batch

_EXACT = 2**53
Scalar = float | bool | str | None


class Rows:
    """Columns under construction; `build` makes them a `Batch` and starts afresh."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._signal: list[int] = []
        self._time: list[int] = []
        self._value: list[float | bool] = []
        self._status: list[int] = []
        self._text_row: list[int] = []
        self._text: list[str] = []
        self._integer_row: list[int] = []
        self._integer: list[int] = []

    def __len__(self) -> int:
        return len(self._signal)

    def add(self, signal: int, time: int, value: Scalar, status: int) -> None:
        """Add one reading: a number, a boolean, text, or None for a status alone."""
        if type(value) is not float:
            value = self._special(len(self._signal), value, status)
        self._signal.append(signal)
        self._time.append(time)
        self._value.append(value)
        self._status.append(status)

    def extend(self, signal: int, time: list[int], value: list[Scalar], status: list[int]) -> None:
        """Add readings of one signal; the lists have one length."""
        start = len(self._signal)
        if set(map(type, value)) != {float}:
            numbers: list[float | bool] = [
                v if type(v) is float else self._special(start + i, v, status[i]) for i, v in enumerate(value)
            ]
        else:
            numbers = value  # type: ignore[assignment]  # all are floats: just seen
        self._signal.extend([signal] * len(value))
        self._time.extend(time)
        self._value.extend(numbers)
        self._status.extend(status)

    def _special(self, row: int, value: Scalar, status: int) -> float:
        """The float that stands for a value which is not a float; text and long integers go to their side."""
        bad = status & 0x80000000
        if value is None:
            return np.nan
        if isinstance(value, str):
            if not bad:
                self._text_row.append(row)
                self._text.append(value)
            return 0.0  # text is a value: it must not be taken for a number that is missing
        if not -_EXACT <= value <= _EXACT and -(2**63) <= value < 2**63 and not bad:
            self._integer_row.append(row)
            self._integer.append(int(value))
        try:
            return float(value)
        except OverflowError:
            return np.inf

    def build(self) -> Batch:
        """The readings so far, in order."""
        text_row = np.asarray(self._text_row, np.uint32)
        numbers = Batch.of(self._signal, self._time, self._value, self._status)
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
        self._clear()
        return batch
