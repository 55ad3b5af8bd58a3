"""The usual mixed DataChangeNotification, read in columns whatever the order of its types and statuses.

Usual is: numbers, Booleans, times and Strings, one to an item, each with a source timestamp that can be one; a status
or none, a value or, where the status is Bad, none. When it is known where the items start, each field of all items is
gathered at once. Whatever else a notification holds is left to `grouped`.
"""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import Columns
from edge.sources.opcua.located import FORMS, VALUE, Located, at_each_byte, locate
from edge.sources.opcua.repeats import Memory, rows_by_kind
from edge.sources.opcua.uniform import as_doubles
from edge.sources.opcua.wire import EPOCH_TICKS, LAST_DATETIME, latest
from fieldlab.model import Batch
from fieldlab.model.status import BAD, BAD_OUT_OF_RANGE

_I32: Final = struct.Struct("<i")
_BOOLEAN: Final = 1
_FLOAT: Final = 10
_DATETIME: Final = 13
_INTEGERS: Final = (8, 9)
_EXACT: Final = 2**53
_BAD: Final = np.uint32(BAD)
_NO_ROWS: Final = np.empty(0, np.uint32)


def read_gathered(body: bytes, pos: int, end: int, arrival: int, memory: Memory | None = None) -> Columns | None:
    """Read the DataChangeNotification in body[pos:end], or return None if it is not a usual one.

    Args:
        body: the whole response.
        pos: where the notification starts.
        end: where it ends.
        arrival: the time it came, ns.
        memory: of the subscription.
    """
    (count,) = _I32.unpack_from(body, pos)
    items = locate(body, pos + 4, end, count)
    if items is None:
        return None
    view = at_each_byte("<u8", body)
    time = view[items.source].view(np.int64)
    time -= EPOCH_TICKS
    if np.maximum.reduce(time.view(np.uint64)) > latest(arrival) - EPOCH_TICKS:  # what is before the epoch is huge here
        return None
    time *= 100
    status = np.zeros(count, np.uint32)
    bad = items.flagged
    if len(bad):
        said = view[items.source[bad] - 4].astype(np.uint32)
        status[bad] = said
        bad = bad[said >= _BAD]
    value = _values(view[items.at + VALUE], items.kinds, status, memory)
    if value is None:
        return None
    value[items.text_rows] = 0.0
    value[bad] = 0.0
    finite = np.isfinite(value)
    if not finite.all():
        status[~finite] = BAD_OUT_OF_RANGE
        value[~finite] = np.nan
    value[items.text_rows] = np.nan
    value[bad] = np.nan
    handles = items.first.astype(np.uint32)
    if memory is not None:
        handles = memory.handles(handles)
    text_rows, texts = _texts(body, items, status)
    return Columns(Batch(handles, time, value, status, text_rows, texts), fast=True)


def _values(
    raw: NDArray[np.uint64], kinds: NDArray[np.uint8], status: NDArray[np.uint32], memory: Memory | None
) -> NDArray[np.float64] | None:
    """What each item holds, from the 8 bytes behind its type; None if a float does not hold it exactly."""
    value = raw.view(np.float64)
    for kind, rows in rows_by_kind(kinds) if memory is None else memory.rows(kinds):
        if not kind:
            if (status[rows] < _BAD).any():
                return None  # a status that promises a value
            continue
        form = np.dtype(FORMS[kind])
        number: NDArray[Any] = raw[rows].view(form)[:: 8 // form.itemsize]
        if kind == _BOOLEAN:
            number = number != 0
        elif kind == _DATETIME:
            number = (np.clip(number, 0, LAST_DATETIME) - EPOCH_TICKS) / 1e7
        elif kind in _INTEGERS and (number.max() > _EXACT or number.min() < -_EXACT):
            return None
        value[rows] = as_doubles(number) if kind == _FLOAT else number
    return value


def _texts(body: bytes, items: Located, status: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    """(rows, texts) of those that are not Bad."""
    rows = items.text_rows
    if not len(rows):
        return _NO_ROWS, ()
    kept = (status[rows] < _BAD).nonzero()[0]
    begin = items.at[rows[kept]] + (VALUE + 4)
    spans = list(zip(begin.tolist(), (begin + items.lengths[kept]).tolist(), strict=True))
    plain = body.decode("latin-1")  # of ASCII text, it is the text
    texts = [plain[start:end] for start, end in spans]
    if not "".join(texts).isascii():
        texts = [body[start:end].decode("utf-8", "replace") for start, end in spans]
    return rows[kept].astype(np.uint32), tuple(texts)
