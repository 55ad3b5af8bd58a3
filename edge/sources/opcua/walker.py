"""Any DataChangeNotification, item by item: mixed types, arrays, text, statuses."""

import base64
import struct
import uuid
from collections.abc import Callable
from typing import Final

import numpy as np

from edge.sources.opcua.columns import SCALAR, Columns, Opaque
from edge.sources.opcua.wire import FIXED_SIZES, Cursor, datetime_to_seconds, latest, to_ns, usable
from fieldlab.model import BatchBuilder
from fieldlab.model.status import BAD, BAD_TYPE_MISMATCH

Value = float | int | str

_FORMS: Final = {1: "B", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d", 19: "I"}
_SCALARS: Final = {kind: struct.Struct("<" + form) for kind, form in _FORMS.items()}


def _guid(cursor: Cursor) -> str:
    pos = cursor.skip(16)
    return str(uuid.UUID(bytes_le=cursor.data[pos : pos + 16]))


def _base64(cursor: Cursor) -> str:
    return base64.b64encode(cursor.raw() or b"").decode()


# How a builtin type that is not a plain number is read, where it can be kept at all.
_READERS: Final[dict[int, Callable[[Cursor], Value]]] = {
    12: Cursor.text,
    13: lambda cursor: datetime_to_seconds(cursor.i64()),
    14: _guid,
    15: _base64,
    16: Cursor.text,
    17: Cursor.node_id_text,
    18: Cursor.node_id_text,
    20: Cursor.qualified_name,
    21: Cursor.localized_text,
}
_MADE_OF_OTHERS: Final = frozenset({22, 23, 24})  # ExtensionObject, DataValue, Variant


class Walker:
    """Collects the readings of a notification."""

    def __init__(self, arrival: int) -> None:
        self._arrival = arrival
        self._latest = latest(arrival)
        self._builder = BatchBuilder()
        self._element: list[int] = []
        self._arrays = False
        self._unkept = 0
        self._replaced = 0
        self._empty = 0
        self._aside: dict[int, int] = {}  # row → see `Columns.aside`
        self._opaque: list[Opaque] = []

    def read(self, cursor: Cursor) -> Columns:
        """Read the DataChangeNotification at `cursor`.

        Raises:
            DecodeError: if it is none. So does `struct.error`.
        """
        for _ in range(cursor.count(5)):
            self.item(cursor)
        for _ in range(cursor.count(1)):
            cursor.skip_diagnostic()
        return self.columns()

    def columns(self) -> Columns:
        """What was read so far."""
        element = np.asarray(self._element, np.int32) if self._arrays else None
        aside = None
        if self._aside:
            aside = np.zeros(len(self._element), np.int64)
            aside[list(self._aside)] = list(self._aside.values())
        return Columns(
            self._builder.build(),
            element,
            self._unkept,
            self._replaced,
            self._empty,
            aside=aside,
            opaque=tuple(self._opaque),
        )

    def item(self, cursor: Cursor) -> int:
        """Read a MonitoredItemNotification: client handle and DataValue, OPC 10000-6, 5.2.2.17.

        Returns:
            How many readings it holds: one, or as many as its array has elements; none yet if it is `Opaque`.
        """
        before = len(self._element)
        handle = cursor.u32()
        mask = cursor.u8()
        values: list[Value] | None = None
        is_array = False
        variant = b""
        if mask & 0x01:
            start = cursor.pos
            values, is_array = self._variant(cursor)
            if cursor.data[start] & 0x3F in _MADE_OF_OTHERS:
                variant = cursor.data[start : cursor.pos]
        status = cursor.u32() if mask & 0x02 else 0
        source = cursor.i64() if mask & 0x04 else 0
        source_pico = cursor.u16() if mask & 0x10 else 0
        server = cursor.i64() if mask & 0x08 else 0
        server_pico = cursor.u16() if mask & 0x20 else 0
        time, aside = self._time(source, source_pico, server, server_pico, status)
        if variant and not status & BAD:
            self._opaque.append(Opaque(handle, time, status, variant, aside))
            return 0
        if status & BAD:
            self._add(handle, SCALAR, time, None, status)
        elif values is None:
            self._unkept += 1
            self._add(handle, SCALAR, time, None, BAD_TYPE_MISMATCH)
        elif is_array:
            self._empty += not values
            for i, value in enumerate(values):
                self._add(handle, i, time, value, status)
        else:
            self._add(handle, SCALAR, time, values[0], status)
        if aside:
            self._aside.update(dict.fromkeys(range(before, len(self._element)), aside))
        return len(self._element) - before

    def _add(self, handle: int, element: int, time: int, value: Value | None, status: int) -> None:
        self._builder.add(handle, time, value, status)
        self._element.append(element)
        self._arrays |= element != SCALAR

    def _time(self, source: int, source_pico: int, server: int, server_pico: int, status: int) -> tuple[int, int]:
        """(ns, see `Columns.aside`)."""
        if usable(source, self._latest):
            return to_ns(source, source_pico), 0
        # A status has no time of its own: when it was told will do.
        aside = 0 if status & BAD else source
        self._replaced += not aside
        return to_ns(server, server_pico) if usable(server, self._latest) else self._arrival, aside

    @staticmethod
    def _variant(cursor: Cursor) -> tuple[list[Value] | None, bool]:
        """(values, whether it is an array); None if the type cannot be kept."""
        encoding = cursor.u8()
        kind = encoding & 0x3F
        if not encoding & 0x80:
            value = read_value(cursor, kind)
            return (None if value is None else [value]), False
        values = _array(cursor, kind)
        if encoding & 0x40:
            cursor.skip(cursor.count(4) * 4)
        return values, True


def read_value(cursor: Cursor, kind: int) -> Value | None:
    """A value of builtin type `kind`; None if it cannot be kept."""
    form = _SCALARS.get(kind)
    if form is not None:
        number: float | int = form.unpack_from(cursor.data, cursor.skip(form.size))[0]
        return number if kind != 1 else int(number != 0)
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(cursor)
    cursor.skip_value(kind)
    return None


def _array(cursor: Cursor, kind: int) -> list[Value] | None:
    """The elements of a one- or more-dimensional array, flat; None if the type cannot be kept."""
    form = _FORMS.get(kind)
    if form is not None:
        size = FIXED_SIZES[kind]
        count = cursor.count(size)
        numbers = struct.unpack_from(f"<{count}{form}", cursor.data, cursor.skip(count * size))
        return [int(n != 0) for n in numbers] if kind == 1 else list(numbers)
    count = cursor.count(FIXED_SIZES.get(kind, 1))
    reader = _READERS.get(kind)
    if reader is not None:
        return [reader(cursor) for _ in range(count)]
    for _ in range(count if kind else 0):
        cursor.skip_value(kind)
    return None
