"""Mixed notifications whose items have the types of the last one in the same order, as most of a subscription have.

Then it need not be found out again which rows are of which type, and less has to be looked at to find where an item
starts: the mask for its status, the length of its text. That each type is the remembered one is checked.
"""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import Columns
from edge.sources.opcua.wire import EPOCH_TICKS, latest
from fieldlab.model import Batch
from fieldlab.model.status import BAD

_I32: Final = struct.Struct("<i")
_VALUE: Final = 6  # behind the client handle, the mask and the type
_TEXT: Final = 12
_DOUBLE: Final = 11
# How numbers stand in the 8 bytes behind the type; what a float cannot hold exactly is not here.
_FORMS: Final = {1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 10: "<f4", 11: "<f8", 19: "<u4"}
_STATUS: Final = 0x02
_SERVER: Final = 0x08
_USUAL: Final = 0x05  # a value and the source's time
_FREE: Final = 0xFFFF & ~(_STATUS | _SERVER)
_ENDS: Final = (b"\xff\xff\xff\xff", b"\0\0\0\0")  # no diagnostics
_LEAST: Final = 16  # fewer items are read as fast without
_NO_ROWS: Final = np.empty(0, np.uint32)


def _size(width: int, mask: int) -> int:
    """Bytes of an item with a value of `width`."""
    return _VALUE + width + 8 + 4 * bool(mask & _STATUS) + 8 * bool(mask & _SERVER)


# By mask; one that is not usual reads on somewhere, which the check of the types finds.
_SIZES: Final = {
    width: [_size(width, mask) for mask in range(256)] for width in (1, 2, 4, 8)
}  # a text counts as its length


class Layout:
    """The types of the items of a notification, in order.

    Attributes:
        heads: mask and type without what is free to change, (n,) u64.
        runs: items between texts, as the sizes by mask of each.
        tail: bytes to the end of the value, without the characters of a text, (n,).
        kinds: type → its rows; without Double and text.
        texts: rows that are text.
    """

    def __init__(self, kinds: NDArray[np.uint8]) -> None:
        widths = np.array([np.dtype(_FORMS.get(kind, "<i4")).itemsize for kind in range(256)], np.int64)[kinds]
        self.heads = (_USUAL | kinds.astype(np.uint64) << np.uint64(8)) & np.uint64(_FREE)
        self.tail = _VALUE + widths
        self.texts = np.flatnonzero(kinds == _TEXT)
        others = sorted(set(kinds.tolist()) - {_TEXT, _DOUBLE})
        self.kinds = [(_FORMS[kind], kind == 1, np.flatnonzero(kinds == kind)) for kind in others]
        sizes = [_SIZES[width] for width in widths.tolist()]
        ends = [*self.texts.tolist(), len(kinds)]
        self.runs = [sizes[begin:end] for begin, end in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True)]

    @staticmethod
    def fits(kinds: NDArray[np.uint8]) -> bool:
        """Whether all of these types can be remembered."""
        return set(np.unique(kinds).tolist()) <= {_TEXT, *_FORMS}


class Memory:
    """The layout of the notifications of one subscription, once two in a row had the same.

    Attributes:
        layout: it, if there is one.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self._last = b""

    def learn(self, kinds: NDArray[np.uint8]) -> None:
        """A notification had these types, (n,), and `layout` was none of it."""
        seen = kinds.tobytes()
        if seen == self._last and len(kinds) >= _LEAST and Layout.fits(kinds):
            self.layout = Layout(kinds)
        self._last = seen


def read_remembered(body: bytes, pos: int, end: int, arrival: int, layout: Layout) -> Columns | None:
    """Read the DataChangeNotification in body[pos:end], or return None if it has another layout.

    Args:
        body: the whole response.
        pos: where the notification starts.
        end: where it ends.
        arrival: the time it came, ns.
        layout: the types that its items should have.
    """
    count = len(layout.heads)
    if _I32.unpack_from(body, pos)[0] != count:
        return None
    found = _scan(body, pos + 4, end, layout)
    if found is None:
        return None
    masks, lengths = found
    at = np.array(masks, np.int64)
    at -= 4
    view: NDArray[Any] = np.ndarray((len(body) - 7,), "<u8", body, 0, (1,))  # the body as starting at each byte
    first = view[at]
    heads = first >> np.uint64(32)
    if ((heads & np.uint64(_FREE)) != layout.heads).any():
        return None
    tail = at + layout.tail
    if lengths:
        tail[layout.texts] += lengths
    flagged = np.flatnonzero(heads & np.uint64(_STATUS))
    status = np.zeros(count, np.uint32)
    bad = flagged
    if len(flagged):
        behind = tail[flagged]
        said = view[behind].astype(np.uint32)
        status[flagged] = said
        tail[flagged] = behind + 4
        bad = flagged[said >= BAD]
    time = view[tail].view(np.int64)
    if time.min() < EPOCH_TICKS or time.max() > latest(arrival):
        return None
    time -= EPOCH_TICKS
    time *= 100
    at += _VALUE
    raw = view[at]
    value = raw.view(np.float64)
    for form, boolean, rows in layout.kinds:
        number = raw[rows].view(form)[:: 8 // np.dtype(form).itemsize]
        value[rows] = number != 0 if boolean else number
    value[layout.texts] = 0.0
    value[bad] = 0.0
    if not np.isfinite(value).all():
        return None
    value[layout.texts] = np.nan
    value[bad] = np.nan
    row, texts = _texts(body, masks, layout.texts, lengths, status)
    return Columns(Batch(first.astype(np.uint32), time, value, status, row, texts), fast=True)


def _scan(body: bytes, pos: int, end: int, layout: Layout) -> tuple[list[int], list[int]] | None:
    """(where the mask of each item is, length of each text in bytes); None if it cannot be this layout."""
    lengths: list[int] = []
    texts = len(layout.texts)
    text_sizes = _SIZES[4]
    mask = pos + 4  # where the mask is
    masks = [mask]
    try:
        for run in layout.runs:
            masks += [mask := mask + sizes[body[mask]] for sizes in run]
            if len(lengths) < texts:
                (length,) = _I32.unpack_from(body, mask + 2)
                if length < -1:
                    return None
                length = max(length, 0)  # null is the empty text
                lengths.append(length)
                mask += length + text_sizes[body[mask]]
                masks.append(mask)
    except (IndexError, struct.error):
        return None  # beyond the body
    # An item beyond the notification, but within the body, ends beyond it too.
    return (masks[:-1], lengths) if body[mask - 4 : end] in _ENDS else None


def _texts(
    body: bytes, masks: list[int], rows: NDArray[np.intp], lengths: list[int], status: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    """(rows, texts) of those that are not Bad."""
    if not lengths:
        return _NO_ROWS, ()
    kept: list[int] = []
    texts: list[str] = []
    for row, length, bad in zip(rows.tolist(), lengths, (status[rows] >= BAD).tolist(), strict=True):
        if not bad:
            at = masks[row] + 6  # behind mask, type and length
            kept.append(row)
            texts.append(body[at : at + length].decode("utf-8", "replace"))
    return np.array(kept, np.uint32), tuple(texts)
