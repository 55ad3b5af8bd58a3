"""The usual mixed DataChangeNotification, read in columns whatever the order of its types and statuses.

Usual is: numbers, Booleans, times and Strings, one to an item, each with a source timestamp that can be one; a status
or none, a value or, where the status is Bad, none. One short loop finds where the items start; then each field of all
items is gathered at once. Whatever else a notification holds is left to `grouped`.
"""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import Columns
from edge.sources.opcua.remembered import Memory
from edge.sources.opcua.uniform import NO_VALUE, NULL, layout
from edge.sources.opcua.wire import EPOCH_TICKS, LAST_DATETIME, latest
from fieldlab.model import Batch
from fieldlab.model.status import BAD_OUT_OF_RANGE, is_bad

_HEAD: Final = struct.Struct("<H")
_I32: Final = struct.Struct("<i")
_VALUE: Final = 6  # behind the client handle, the mask and the type
_TEXT: Final = 12
_DATETIME: Final = 13
_FORMS: Final = {
    1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8",
    13: "<i8", 19: "<u4",
}  # fmt: skip
_EXACT: Final = 2**53
_ENDS: Final = (b"\xff\xff\xff\xff", b"\0\0\0\0")  # no diagnostics
_NO_KIND: Final = 0


class _Tables:
    """What the two bytes behind the client handle, the DataValue's mask and the Variant's type, say of an item.

    Attributes:
        size: bytes of the item, negative where those of a text come on top; 0 if it is not a usual one, a list of 2^16.
        status: where the status is, 0 for none, (2^16,).
        source: where the source timestamp is, (2^16,).
        kind: builtin type of the value, 0 for none, (2^16,).
    """

    def __init__(self) -> None:
        self.size = [0] * 65536
        self.status = np.zeros(65536, np.uint8)
        self.source = np.zeros(65536, np.uint8)
        self.kind = np.zeros(65536, np.uint8)
        for mask in (0x04, 0x06, 0x0C, 0x0E):  # the source's time, and perhaps the status and the server's time
            for low in range(mask, 65536, 256):  # the second byte belongs to the fields already
                self._add(low, mask, NO_VALUE)
            for kind in (NULL, _TEXT, *_FORMS):
                self._add(mask | 0x01 | kind << 8, mask | 0x01, kind)

    def _add(self, head: int, mask: int, kind: int) -> None:
        form = layout(mask, NULL if kind == _TEXT else kind)
        assert form is not None
        assert form.fields is not None
        text = 4 if kind == _TEXT else 0  # its length
        self.size[head] = -(form.itemsize + text) if text else form.itemsize
        self.source[head] = form.fields["source"][1] + text
        self.status[head] = form.fields["status"][1] + text if mask & 0x02 else 0
        self.kind[head] = max(kind, _NO_KIND)


_T: Final = _Tables()


def read_gathered(body: bytes, pos: int, end: int, arrival: int, memory: Memory | None = None) -> Columns | None:
    """Read the DataChangeNotification in body[pos:end], or return None if it is not a usual one.

    Args:
        body: the whole response.
        pos: where the notification starts.
        end: where it ends.
        arrival: the time it came, ns.
        memory: learns what the subscription's notifications looked like.
    """
    (count,) = _I32.unpack_from(body, pos)
    found = _scan(body, pos + 4, end, count)
    if found is None:
        return None
    starts, text_rows, lengths = found
    at = np.array(starts, np.int64)
    first = _at("<u8", body, at)  # a shorter last item reads on, into the end of the notification and the results
    heads = first.view("<u2")[2::4]
    tail = at
    text_at = np.array(text_rows, np.intp)
    if text_rows:
        tail = at.copy()
        tail[text_at] += lengths
    time = _at("<i8", body, tail + _T.source[heads])
    if time.min() < EPOCH_TICKS or time.max() > latest(arrival):
        return None
    time -= EPOCH_TICKS
    time *= 100
    status = np.zeros(count, np.uint32)
    offset = _T.status[heads]
    flagged = np.flatnonzero(offset)
    if len(flagged):
        status[flagged] = _at("<u4", body, tail[flagged] + offset[flagged])
    bad = is_bad(status)
    value = np.full(count, np.nan)
    kinds = _T.kind[heads]
    for kind in np.flatnonzero(np.bincount(kinds)).tolist():
        rows = np.flatnonzero(kinds == kind)
        if kind == _NO_KIND:
            if not bad[rows].all():
                return None  # a status that promises a value
        elif kind != _TEXT and not _numbers(kind, body, at[rows] + _VALUE, value, rows):
            return None
    value[bad] = np.nan
    lacking = ~(np.isfinite(value) | bad)
    lacking[text_at] = False
    if lacking.any():
        status[lacking] = BAD_OUT_OF_RANGE
        value[lacking] = np.nan
    if memory is not None:
        memory.learn(kinds)
    rows_of_text, texts = _texts(body, starts, text_rows, lengths, bad[text_at])
    return Columns(Batch(first.view("<u4")[::2].copy(), time, value, status, rows_of_text, texts), fast=True)


_NO_ROWS: Final = np.empty(0, np.uint32)


def _scan(body: bytes, pos: int, end: int, count: int) -> tuple[list[int], list[int], list[int]] | None:
    """(start of each item, the items that are text, their lengths in bytes); None if one is not usual."""
    if count < 1 or count > end - pos:
        return None
    sizes, head_at = _T.size, _HEAD.unpack_from
    starts: list[int] = []
    text_rows: list[int] = []
    lengths: list[int] = []
    add = starts.append
    try:
        for item in range(count):
            add(pos)
            (head,) = head_at(body, pos + 4)
            size = sizes[head]
            if size > 0:
                pos += size
            elif size:
                (length,) = _I32.unpack_from(body, pos + _VALUE)
                if length < -1:
                    return None
                length = max(length, 0)  # null is the empty text
                text_rows.append(item)
                lengths.append(length)
                pos += length - size
            else:
                return None
    except struct.error:
        return None  # beyond the body
    # An item beyond the notification, but within the body, ends beyond it too.
    return (starts, text_rows, lengths) if body[pos:end] in _ENDS else None


def _texts(
    body: bytes, starts: list[int], rows: list[int], lengths: list[int], bad: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    """(rows, texts) of those that are not `bad`, (k,)."""
    if not rows:
        return _NO_ROWS, ()
    flags = bad.tolist()
    kept = [(row, starts[row] + _VALUE + 4, n) for row, n, flag in zip(rows, lengths, flags, strict=True) if not flag]
    texts = [body[at : at + n].decode("utf-8", "replace") for _, at, n in kept]
    return np.array([row for row, _, _ in kept], np.uint32), tuple(texts)


def _numbers(kind: int, body: bytes, at: NDArray[np.int64], value: NDArray[np.float64], rows: NDArray[np.intp]) -> bool:
    """Put the numbers of builtin type `kind` in `value`; whether a float holds each exactly."""
    raw = _at(_FORMS[kind], body, at)
    if kind == 1:
        raw = raw != 0
    elif kind == _DATETIME:
        raw = (np.clip(raw, 0, LAST_DATETIME) - EPOCH_TICKS) / 1e7
    elif kind in (8, 9) and (raw.max() > _EXACT or raw.min() < -_EXACT):
        return False
    value[rows] = raw
    return True


def _at(form: str, body: bytes, at: NDArray[np.int64]) -> NDArray[Any]:
    """What stands at each of these places: the body seen as starting at every byte, of which numpy copies some."""
    kind = np.dtype(form)
    view: NDArray[Any] = np.ndarray((len(body) - kind.itemsize + 1,), kind, body, 0, (1,))
    return view[at]
