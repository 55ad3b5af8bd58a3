"""Columns by signal: previous values, and lengths of runs, for all signals at once and over the ends of batches."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)
_APART = 2**40  # further than any run is long


class Groups:
    """Rows sorted by slot, each slot's in their order.

    Attributes:
        slot: of each row, (n,), ascending.
        first: where each slot's rows begin, (g,).
        size: how many it has, (g,).
        which: the slots, (g,).
        number: of each row's group, (n,).
        rank: of each row in its group, (n,).
    """

    def __init__(self, slot: NDArray[np.intp]) -> None:
        n = len(slot)
        self.slot = slot
        self.first = np.concatenate([[0], np.flatnonzero(np.diff(slot)) + 1]).astype(np.intp) if n else slot[:0]
        self.size = np.diff(np.append(self.first, n))
        self.which = slot[self.first]
        self.number = np.repeat(np.arange(len(self.first)), self.size)
        self.rank = np.arange(n) - np.repeat(self.first, self.size)

    @property
    def last(self) -> NDArray[np.intp]:
        """Where each slot's rows end, (g,)."""
        return self.first + self.size - 1

    def before(self, column: NDArray[_T], carried: NDArray[_T]) -> NDArray[_T]:
        """The value before each row's; of a group's first row, what is carried, (g,)."""
        found = np.empty_like(column)
        found[1:] = column[:-1]
        found[self.first] = carried
        return found

    def runs(self, same: NDArray[np.bool_], carried: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows in a row, this one included, have been `same`, (n,).

        Args:
            same: of each row.
            carried: the run that each group had before, (g,).

        >>> import numpy as np
        >>> groups = Groups(np.array([4, 4, 4, 7, 7]))
        >>> groups.runs(np.array([True, False, True, True, True]), np.array([2, 0])).tolist()
        [3, 0, 1, 1, 2]
        """
        at = np.arange(len(same))
        start = np.full(len(same), -_APART)
        start[self.first] = self.first - 1 - carried
        began = np.where(same, start, at) + self.number * _APART
        return np.asarray(at - (np.maximum.accumulate(began) - self.number * _APART))
