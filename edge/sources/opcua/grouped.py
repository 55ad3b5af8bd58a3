"""A mixed DataChangeNotification: items of equal layout are gathered and read by numpy, the rest item by item.

One pass finds where each item starts (its size follows from the fields of the DataValue and the type of the Variant);
then all items of one layout are read at once, however they are interleaved.
"""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import SCALAR, Columns
from edge.sources.opcua.uniform import NO_VALUE, layout, read_rows
from edge.sources.opcua.walker import Walker
from edge.sources.opcua.wire import Cursor
from fieldlab.model import concat

_LEAST: Final = 16  # a layout with fewer items is cheaper item by item
_HEAD: Final = struct.Struct("<H")
_WALKED: Final = 0xFFFF  # a head that no layout has


def _tables() -> tuple[list[int], NDArray[np.int16], list[tuple[int, int]]]:
    """(size of an item, its layout) by the two bytes behind the client handle, and the layouts; 0 for "it varies"."""
    sizes = [0] * 65536
    numbers = np.zeros(65536, np.int16)
    layouts: list[tuple[int, int]] = [(0, 0)]
    for mask in range(0x40):
        if not mask & 0x01:
            found = layout(mask, NO_VALUE)
            assert found is not None
            for low in range(mask, 65536, 256):  # the second byte belongs to the fields already
                sizes[low], numbers[low] = found.itemsize, len(layouts)
            layouts.append((mask, NO_VALUE))
            continue
        for kind in range(0x40):
            found = layout(mask, kind)
            if found is not None:
                sizes[mask | kind << 8], numbers[mask | kind << 8] = found.itemsize, len(layouts)
                layouts.append((mask, kind))
    return sizes, numbers, layouts


_SIZES, _NUMBERS, _LAYOUTS = _tables()


def read_grouped(body: bytes, pos: int, end: int, arrival: int) -> Columns:
    """Read the DataChangeNotification in body[pos:end].

    Args:
        body: the whole response.
        pos: where the notification starts.
        end: where it ends.
        arrival: the time for readings without one, ns.

    Raises:
        DecodeError: if it is none. So does `struct.error`.
    """
    cursor = Cursor(body, pos, end)
    walker = Walker(arrival)
    count = cursor.count(5)
    starts, heads, walked = _scan(cursor, walker, count)
    for _ in range(cursor.count(1)):
        cursor.skip_diagnostic()
    at = np.array(starts, np.int64)
    of = _NUMBERS[np.array(heads, np.intp)]
    batches, items = [], []
    asides: list[NDArray[np.int64] | None] = []
    unkept = replaced = 0
    for number, members in enumerate(np.bincount(of).tolist()):
        if not members or not number:
            continue
        chosen = np.flatnonzero(of == number)
        if members < _LEAST:
            for item in chosen.tolist():
                walked += [item] * walker.item(Cursor(body, int(at[item]), end))
            continue
        mask, kind = _LAYOUTS[number]
        form = layout(mask, kind)
        assert form is not None
        # Every byte of the body seen as the start of an item: numpy then copies those that are one.
        view = np.ndarray((end - pos - form.itemsize + 1,), form, body, pos, (1,))
        found = read_rows(view[at[chosen] - pos], mask, kind, arrival)
        batches.append(found.batch)
        asides.append(found.aside)
        items.append(chosen)
        unkept += found.unkept
        replaced += found.times_replaced
    rest = walker.columns()
    order = np.argsort(np.concatenate([*items, np.array(walked, np.intp)]), kind="stable")
    element = None
    if rest.element is not None:
        grouped = np.full(sum(len(b) for b in batches), SCALAR, np.int32)
        element = np.concatenate([grouped, rest.element])[order]
    aside = None
    if rest.aside is not None or any(one is not None for one in asides):
        parts = zip([*asides, rest.aside], [*batches, rest.batch], strict=True)
        aside = np.concatenate([np.zeros(len(b), np.int64) if one is None else one for one, b in parts])[order]
    batch = concat([*batches, rest.batch]).take(order)
    return Columns(
        batch,
        element,
        unkept + rest.unkept,
        replaced + rest.times_replaced,
        rest.empty,
        aside=aside,
        opaque=rest.opaque,
    )


def _scan(cursor: Cursor, walker: Walker, count: int) -> tuple[list[int], list[int], list[int]]:
    """(start and head of each item, the item of each reading that `walker` took); the head of those is `_WALKED`."""
    data, end = cursor.data, cursor.end
    head_at, sizes = _HEAD.unpack_from, _SIZES
    starts: list[int] = []
    heads: list[int] = []
    walked: list[int] = []
    pos = cursor.pos
    for item in range(count):
        starts.append(pos)
        (head,) = head_at(data, pos + 4)
        size = sizes[head]
        if size and pos + size <= end:
            heads.append(head)
            pos += size
            continue
        cursor.pos = pos
        walked += [item] * walker.item(cursor)
        heads.append(_WALKED)
        pos = cursor.pos
    cursor.pos = pos
    return starts, heads, walked
