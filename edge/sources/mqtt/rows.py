"""Readings while they are gathered: columns of machine numbers that grow, then one batch."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch

_EXACT = 2**53
_NUMBERS = frozenset((float, int, bool))
_PIECE = 1000  # readings that come at once and stay apart until the batch is built
Scalar = float | bool | str | None
_Piece = tuple["array[int]", "array[int]", "array[float]", "array[int]"]


class Rows:
    """Columns under construction; `build` makes them a `Batch` and starts afresh.

    Attributes:
        lost: signal → readings that are known to be lost, by the numbers that messages carry.
    """

    def __init__(self) -> None:
        self._past: Rows | None = None
        self._clear()

    @property
    def past(self) -> "Rows":
        """Readings of the past, which are stored and never judged: rows of their own."""
        if self._past is None:
            self._past = Rows()
        return self._past

    @property
    def past_count(self) -> int:
        """How many readings of the past there are."""
        return 0 if self._past is None else len(self._past)

    def _clear(self) -> None:
        self._done: list[_Piece] = []  # columns that came at once: to grow one array by them would move it
        self._before = 0  # readings in those
        self._text_row: list[int] = []
        self._text: list[str] = []
        self._integer_row: list[int] = []
        self._integer: list[int] = []
        self.lost: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        self._signal = array("I")
        self._time = array("q")
        self._value = array("d")
        self._status = array("I")

    def _seal(self) -> None:
        """What was added one by one becomes a piece."""
        if self._signal:
            self._before += len(self._signal)
            self._done.append((self._signal, self._time, self._value, self._status))
            self._start()

    def __len__(self) -> int:
        return self._before + len(self._signal)

    def add(self, signal: int, time: int, value: Scalar, status: int) -> None:
        """Add one reading: a number, a boolean, text, or None for a status alone."""
        if type(value) is not float:
            value = self._special(len(self), value, status)
        self._signal.append(signal)
        self._time.append(time)
        self._value.append(value)
        self._status.append(status)

    def lose(self, signal: int, count: int) -> None:
        """Note readings that never came, beside one that did."""
        self.lost[signal] = self.lost.get(signal, 0) + count

    def extend(
        self, signal: Sequence[int] | int, time: "array[int]", value: Sequence[Scalar], status: Sequence[int] | int
    ) -> None:
        """Add readings in columns of one length; one signal or one status stands for all."""
        n = len(value)
        numbers = value if isinstance(value, array) else self._numbers(value, status)
        if n >= _PIECE:
            self._seal()
            self._before += n
            self._done.append((_column(signal, n), time, numbers, _column(status, n)))
            return
        self._signal += _column(signal, n)
        self._time += time
        self._value += numbers
        self._status += _column(status, n)

    def _numbers(self, value: Sequence[Scalar], status: Sequence[int] | int) -> "array[float]":
        """The floats of a column; what is none goes to its side."""
        kinds = set(map(type, value))
        if kinds == {float}:
            return array("d", value)  # type: ignore[arg-type]  # all are floats: just seen
        if kinds <= _NUMBERS:
            numbers: Sequence[float] = value  # type: ignore[assignment]  # same
            if min(numbers, default=0) >= -_EXACT and max(numbers, default=0) <= _EXACT:
                return array("d", numbers)
        start = len(self)
        return array(
            "d",
            (
                v if type(v) is float else self._special(start + i, v, status if isinstance(status, int) else status[i])
                for i, v in enumerate(value)
            ),
        )

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
        self._seal()
        pieces = self._done or [(self._signal, self._time, self._value, self._status)]
        signal, time, value, status = zip(*pieces, strict=True)
        numbers = Batch.of(
            _joined(signal, np.uint32), _joined(time, np.int64), _joined(value, np.float64), _joined(status, np.uint32)
        )
        if self._text or self._integer:
            text_row = np.asarray(self._text_row, np.uint32)
            numbers.value[text_row] = np.nan
            numbers = Batch(
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
        return numbers


def _column(entries: Sequence[int] | int, n: int) -> "array[int]":
    """A column of u32, of `n` times the same if there is but one."""
    if isinstance(entries, int):
        return array("I", (entries,)) * n
    return entries if isinstance(entries, array) else array("I", entries)


def _joined(pieces: Sequence["array[Any]"], kind: type[np.generic]) -> NDArray[Any]:
    """One column of its pieces."""
    if len(pieces) == 1:
        return np.frombuffer(pieces[0], kind)
    return np.concatenate([np.frombuffer(each, kind) for each in pieces])
