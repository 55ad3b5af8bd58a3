"""Where the items of a DataChangeNotification start: found by numpy at every place at once, then proved.

The size of an item follows from the mask of its DataValue, the type of its Variant and the length of its text, so a
reader that goes from one to the next finds them, at 0.1 µs each. Here every byte that may be the mask of a usual item
is a candidate; those that are none fall out because no item ends where they start. What is left is taken only if it
is a chain from the first item to the end of the notification: the same that the reader would find.
"""

import struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.uniform import NO_VALUE, NULL, layout

TEXT: Final = 12
VALUE: Final = 6  # behind the client handle, the mask and the type
FORMS: Final = {
    1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8",
    13: "<i8", 19: "<u4",
}  # fmt: skip
_HEAD: Final = struct.Struct("<H")
_I32: Final = struct.Struct("<i")
_ENDS: Final = (b"\xff\xff\xff\xff", b"\0\0\0\0")  # no diagnostics
_SHORTEST: Final = 13  # bytes of an item: handle, mask, the source's time
_HIGH_OF_HANDLE: Final = 3
_MASK: Final = 4
_USUAL_BITS: Final = np.uint8(0xF4)
_USUAL: Final = np.uint8(0x04)  # a source time, no picoseconds, nothing reserved
_ZERO: Final = np.uint8(0)
_NULL: Final = -1
_TRIES: Final = 2  # prunings of candidates; what is wrong then is left to the loop


class Located(NamedTuple):
    """The items of a notification.

    Attributes:
        at: where each starts, (n,).
        first: its first 8 bytes, (n,) u64.
        ends: where it ends, (n,).
        source: where its source timestamp is, (n,).
        flagged: those with a status, which stands before the timestamp, (f,).
        kinds: builtin type of its value, 0 for none, (n,).
        text_rows: those whose value is a String, (k,).
        lengths: bytes of these, (k,).
    """

    at: NDArray[np.int64]
    first: NDArray[np.uint64]
    ends: NDArray[np.int64]
    source: NDArray[np.int64]
    flagged: NDArray[np.intp]
    kinds: NDArray[np.uint8]
    text_rows: NDArray[np.intp]
    lengths: NDArray[np.int64]


class _Tables:
    """What an item is, by its head: the mask of the DataValue and, behind it, the type of the Variant.

    Attributes:
        size: bytes of the item, without the characters of a text; 0 if it is not a usual one.
        text: whether it is a text.
        back: bytes from its source timestamp to its end.
        status: whether it has a status.
        kind: builtin type of its value, 0 for none.
    """

    def __init__(self) -> None:
        self.size = np.zeros(65536, np.int64)
        self.text = np.zeros(65536, np.bool_)
        self.back = np.zeros(65536, np.int64)
        self.status = np.zeros(65536, np.bool_)
        self.kind = np.zeros(65536, np.uint8)
        for mask in (0x04, 0x06, 0x0C, 0x0E):  # the source's time, and perhaps the status and the server's time
            self._add(slice(mask, None, 256), mask, NO_VALUE)  # the second byte belongs to the fields already
            for kind in (NULL, TEXT, *FORMS):
                head = mask | 0x01 | kind << 8
                self._add(slice(head, head + 1), mask | 0x01, kind)

    def _add(self, heads: slice, mask: int, kind: int) -> None:
        text = kind == TEXT
        form = layout(mask, NULL if text else kind)
        assert form is not None
        assert form.fields is not None
        self.size[heads] = form.itemsize + 4 * text  # its length
        self.text[heads] = text
        self.back[heads] = form.itemsize - form.fields["source"][1]
        self.status[heads] = mask & 0x02
        self.kind[heads] = max(kind, 0)


_T: Final = _Tables()
_SIZES: Final[list[int]] = _T.size.tolist()
_NO_LENGTHS: Final = np.empty(0, np.int64)


def at_each_byte(form: str, body: bytes) -> NDArray[Any]:
    """What stands at each place: the body seen as starting at every byte, without a copy."""
    kind = np.dtype(form)
    return np.ndarray((len(body) - kind.itemsize + 1,), kind, body, 0, (1,))


def locate(body: bytes, pos: int, end: int, count: int) -> Located | None:
    """Find the items, or return None if one of them is not a usual one.

    Args:
        body: the whole response.
        pos: where the first item starts.
        end: where the notification ends.
        count: how many there are.
    """
    if count < 1 or count * _SHORTEST > end - pos:
        return None
    return _guess(body, pos, end, count) or _walk(body, pos, end, count)


def _guess(body: bytes, pos: int, end: int, count: int) -> Located | None:
    """The items, if all of them can be told from what is none."""
    n = end - pos - _SHORTEST
    raw = np.frombuffer(body, np.uint8)
    usual = (raw[pos + _MASK : pos + _MASK + n] & _USUAL_BITS) == _USUAL
    usual &= raw[pos + _HIGH_OF_HANDLE : pos + _HIGH_OF_HANDLE + n] == _ZERO  # handles are counted from 0
    at = usual.nonzero()[0]
    at += pos
    for _ in range(_TRIES):
        if len(at) < count or at.item(0) != pos:
            return None
        found = _measure(body, at)
        if len(at) == count and found.ends[:-1].tobytes() == at[1:].tobytes():
            return found if body[found.ends.item(-1) : end] in _ENDS else None
        # An item starts where another one ends.
        starts = np.zeros(len(body) + 1, np.bool_)
        starts[np.minimum(found.ends, len(body))] = True
        starts[pos] = True
        at = at[starts[at]]
    return None


def _measure(body: bytes, at: NDArray[np.int64]) -> Located:
    # Tables and no arithmetic: at ten notifications a second the first use of each of numpy's functions is what costs.
    first = at_each_byte("<u8", body)[at]
    heads = first.view("<u2")[2::4].astype(np.intp)
    ends = _T.size[heads]
    ends += at
    text_rows, lengths = _T.text[heads].nonzero()[0], _NO_LENGTHS
    if len(text_rows):
        lengths = at_each_byte("<i4", body)[at[text_rows] + VALUE].astype(np.int64)
        if min(lengths.tolist()) < 0:
            ends[text_rows[lengths < _NULL]] = 0  # no item: nothing starts where it ends
            lengths[lengths < 0] = 0  # null is the empty text
        ends[text_rows] += lengths
    return Located(
        at, first, ends, ends - _T.back[heads], _T.status[heads].nonzero()[0], _T.kind[heads], text_rows, lengths
    )


def _walk(body: bytes, pos: int, end: int, count: int) -> Located | None:
    """The items, one after the other."""
    starts: list[int] = []
    try:
        for _ in range(count):
            starts.append(pos)
            (head,) = _HEAD.unpack_from(body, pos + _MASK)
            size = _SIZES[head]
            if not size:
                return None
            if _T.text[head]:
                (length,) = _I32.unpack_from(body, pos + VALUE)
                if length < _NULL:
                    return None
                size += max(length, 0)
            pos += size
    except struct.error:
        return None  # beyond the body
    # An item beyond the notification, but within the body, ends beyond it too.
    return _measure(body, np.array(starts, np.int64)) if body[pos:end] in _ENDS else None
