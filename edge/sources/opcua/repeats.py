"""What repeats from one notification of a subscription to the next: mostly the same items, in the same order.

Which rows are of which type need not be found out again then, and the handles are the very same array: who maps them to
something else sees at a glance that nothing has changed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_DOUBLE: Final = 11
_TEXT: Final = 12


class Memory:
    """What the last notification of one subscription looked like.

    Attributes:
        hits: notifications that had the types of the one before, in the same order.
    """

    def __init__(self) -> None:
        self.hits = 0
        self._kinds = b""
        self._rows: list[tuple[int, NDArray[np.intp]]] = []
        self._handles: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._known = b""

    def rows(self, kinds: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.intp]]]:
        """See `rows_by_kind`."""
        known = kinds.tobytes()
        if known == self._kinds:
            self.hits += 1
        else:
            self._kinds, self._rows = known, rows_by_kind(kinds)
        return self._rows

    def handles(self, handles: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """`handles`, or the same ones of the last notification. Nobody may write into it."""
        known = handles.tobytes()
        if known != self._known:
            self._known, self._handles = known, handles
            handles.flags.writeable = False
        return self._handles


def rows_by_kind(kinds: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.intp]]]:
    """(builtin type, its rows), without Double and text; 0 is "no value"."""
    there = np.flatnonzero(np.bincount(kinds)).tolist()
    return [(kind, np.flatnonzero(kinds == kind)) for kind in there if kind not in (_DOUBLE, _TEXT)]
