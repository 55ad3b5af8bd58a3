"""What a DataChangeNotification becomes: a batch by client handle, and what could not be kept."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, concat

SCALAR = -1


class Columns(msgspec.Struct, frozen=True, eq=False):
    """Readings of one notification.

    Attributes:
        batch: the readings; `signal` holds client handles, not signal indices.
        element: which element of an array each reading is, `SCALAR` for none, (n,); None if all are scalars.
        unkept: values of a type that cannot be kept, which became a status.
        times_replaced: readings without a usable source time, which got the server's or that of arrival.
        empty: array values without elements.
        fast: whether numpy read them all at once.
    """

    batch: Batch
    element: NDArray[np.int32] | None = None
    unkept: int = 0
    times_replaced: int = 0
    empty: int = 0
    fast: bool = False


def join(parts: list[Columns]) -> Columns:
    """The readings of all `parts`, in order."""
    if len(parts) == 1:
        return parts[0]
    element = None
    if any(p.element is not None for p in parts):
        element = np.concatenate(
            [np.full(len(p.batch), SCALAR, np.int32) if p.element is None else p.element for p in parts]
        )
    return Columns(
        concat([p.batch for p in parts]),
        element,
        sum(p.unkept for p in parts),
        sum(p.times_replaced for p in parts),
        sum(p.empty for p in parts),
        all(p.fast for p in parts),
    )
