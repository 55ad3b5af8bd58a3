"""What a DataChangeNotification becomes: a batch by client handle, and what could not be kept."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, concat

SCALAR = -1


class Opaque(msgspec.Struct, frozen=True):
    """A value that is made of others, such as a structure: its reader must know the server's types.

    Attributes:
        handle: client handle.
        time: ns.
        status: not Bad.
        variant: the bytes of the Variant, OPC 10000-6, 5.2.2.16.
        aside: the source's ticks where they cannot be its time; 0 otherwise.
    """

    handle: int
    time: int
    status: int
    variant: bytes
    aside: int = 0


class Columns(msgspec.Struct, frozen=True, eq=False):
    """Readings of one notification.

    Attributes:
        batch: the readings; `signal` holds client handles, not signal indices.
        element: which element of an array each reading is, `SCALAR` for none, (n,); None if all are scalars.
        unkept: values of a type that cannot be kept, which became a status.
        times_replaced: readings without a source time, which got the server's or that of arrival.
        empty: array values without elements.
        fast: whether numpy read them all at once.
        aside: the source's ticks where they cannot be its time (the year 1, tomorrow), 0 elsewhere, (n,); None if
            every time can be. Such a reading has the server's time, or that of arrival, and is to be kept aside.
        opaque: values made of others, which are no rows of `batch` yet.
    """

    batch: Batch
    element: NDArray[np.int32] | None = None
    unkept: int = 0
    times_replaced: int = 0
    empty: int = 0
    fast: bool = False
    aside: NDArray[np.int64] | None = None
    opaque: tuple[Opaque, ...] = ()


def join(parts: list[Columns]) -> Columns:
    """The readings of all `parts`, in order."""
    if len(parts) == 1:
        return parts[0]
    element = None
    if any(p.element is not None for p in parts):
        element = np.concatenate(
            [np.full(len(p.batch), SCALAR, np.int32) if p.element is None else p.element for p in parts]
        )
    aside = None
    if any(p.aside is not None for p in parts):
        aside = np.concatenate([np.zeros(len(p.batch), np.int64) if p.aside is None else p.aside for p in parts])
    return Columns(
        concat([p.batch for p in parts]),
        element,
        sum(p.unkept for p in parts),
        sum(p.times_replaced for p in parts),
        sum(p.empty for p in parts),
        all(p.fast for p in parts),
        aside,
        tuple(one for p in parts for one in p.opaque),
    )
