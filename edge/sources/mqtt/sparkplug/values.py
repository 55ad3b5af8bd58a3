"""What a metric's value is, once its type is known: scalars, each with a name below that of the metric.

Types and their encodings: Sparkplug 3.0.0, chapter 6.4 (Sparkplug B payload), and its B.1 on arrays.
"""

from typing import Any

import numpy as np

from edge.sources.mqtt.rows import Scalar
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.datatypes import (
    BOOLEAN,
    BOOLEAN_ARRAY,
    BYTES,
    DATASET,
    DATETIME,
    DATETIME_ARRAY,
    DOUBLE,
    FILE,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    NAMES,
    PROPERTY_SET,
    PROPERTY_SET_LIST,
    STRING,
    STRING_ARRAY,
    TEMPLATE,
    TEXT,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    UUID,
)
from fieldlab.sparkplug.wire import LENGTH, VARINT, Wire, packed, text, walk

_BITS = {INT8: 8, INT16: 16, INT32: 32, INT64: 64, UINT8: 8, UINT16: 16, UINT32: 32, UINT64: 64}
_ARRAYS = dict(zip(range(22, 32), ("i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f4", "<f8"), strict=True))
_NOT_READ = frozenset((BYTES, FILE, PROPERTY_SET, PROPERTY_SET_LIST))
SINGLE = frozenset((*_BITS, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT, UUID))
_MOST = 10_000  # scalars of one metric

Found = list[tuple[str, Scalar]]


class Mismatch(ValueError):  # noqa: N818  # a reason
    """A value that is not of its type."""


def flatten(data: bytes, datatype: int, value: p.Value) -> Found:
    """The scalars in a value: (what follows the metric's name, scalar), in order.

    A scalar has an empty suffix; an element of an array `[0]`, a cell of a DataSet `[row].column`, a metric of a
    Template `.name`. DateTime becomes epoch seconds. Bytes, File and template definitions have none.

    Raises:
        Mismatch: if the value is not of the type.
        Wire: if a DataSet or Template within cannot be read.
    """
    return _flatten(data, datatype, value, 0)


def _flatten(data: bytes, datatype: int, value: p.Value, depth: int) -> Found:
    if datatype in SINGLE:
        return [("", scalar(datatype, value))]
    if datatype in _NOT_READ:
        return []
    if datatype == DATASET and value.field == p.DATASET:
        return _dataset(data, value.raw)
    if datatype == TEMPLATE and value.field == p.TEMPLATE:
        return _template(data, value.raw, depth)
    if 22 <= datatype <= DATETIME_ARRAY and value.field == p.BYTES:
        return [(f"[{i}]", each) for i, each in enumerate(_array(datatype, value.raw))]
    raise _mismatch(datatype, value)


def scalar(datatype: int, value: p.Value) -> Scalar:
    """The number, boolean or text of a single value.

    Raises:
        Mismatch: if it is not of the type.
    """
    field, raw = value.field, value.raw
    if datatype in _BITS:
        if field in (p.INT, p.LONG):
            return _integer(datatype, raw)
    elif datatype in (FLOAT, DOUBLE):
        if field in (p.FLOAT, p.DOUBLE):
            found: float = raw
            return found
    elif datatype == BOOLEAN:
        if field == p.BOOLEAN:
            return bool(raw)
    elif datatype == DATETIME:
        if field == p.LONG:
            return _signed(raw, 64) / 1000.0
    elif field == p.STRING:
        return str(raw)
    raise _mismatch(datatype, value)


def _mismatch(datatype: int, value: p.Value) -> Mismatch:
    name = NAMES[datatype] if datatype < len(NAMES) else f"unknown type {datatype}"
    fields = ("int", "long", "float", "double", "boolean", "string", "bytes", "dataset", "template", "extension")
    held = f"{fields[value.field - p.INT]}_value" if value.field else "no value"
    return Mismatch(f"the type is {name}, and there is {held}")


def _signed(raw: int, bits: int) -> int:
    return raw - (1 << bits) if raw >> (bits - 1) & 1 else raw


def _integer(datatype: int, raw: int) -> int:
    """A whole number of 8 to 64 bits; a negative one may come extended to 32 or 64 bits."""
    bits = _BITS[datatype]
    low = raw & ((1 << bits) - 1)
    value = _signed(low, bits) if datatype <= INT64 else low
    if raw in (low, value & 0xFFFFFFFF, value & 0xFFFFFFFFFFFFFFFF):
        return value
    raise Mismatch(f"{raw} does not fit into {NAMES[datatype]}")


def _array(datatype: int, raw: bytes) -> list[Any]:
    """The elements of an array."""
    found: list[Any]
    if datatype == BOOLEAN_ARRAY:
        if len(raw) < 4:
            raise Mismatch("a BooleanArray begins with 4 bytes of length")
        count = int.from_bytes(raw[:4], "little")
        if (count + 7) // 8 != len(raw) - 4:
            raise Mismatch(f"a BooleanArray of {count} has {len(raw) - 4} bytes")
        found = [bool(each) for each in np.unpackbits(np.frombuffer(raw[4:], np.uint8), count=count).tolist()]
    elif datatype == STRING_ARRAY:
        if raw and raw[-1]:
            raise Mismatch("a StringArray does not end with a zero byte")
        try:
            found = [each.decode() for each in raw.split(b"\0")[:-1]]
        except UnicodeDecodeError as e:
            raise Mismatch(f"a StringArray is not UTF-8: {e}") from None
    else:
        dtype = np.dtype("<i8" if datatype == DATETIME_ARRAY else _ARRAYS[datatype])
        if len(raw) % dtype.itemsize:
            raise Mismatch(f"a {NAMES[datatype]} has {len(raw)} bytes, no multiple of {dtype.itemsize}")
        found = np.frombuffer(raw, dtype).tolist()
        if datatype == DATETIME_ARRAY:
            found = [each / 1000.0 for each in found]
    return _bounded(found)


def _bounded(found: list[Any]) -> list[Any]:
    if len(found) > _MOST:
        raise Mismatch(f"{len(found)} values in one metric; {_MOST} are read")
    return found


def _dataset(data: bytes, span: tuple[int, int]) -> Found:
    """The cells of a DataSet, row by row."""
    columns: list[str] = []
    types: list[int] = []
    rows: list[tuple[int, int]] = []
    for field, kind, value in walk(data, *span):
        if field in (2, 4) and kind != LENGTH:
            raise Wire(f"field {field} of a DataSet has wire type {kind}")
        if field == 2:
            columns.append(text(data, value))
        elif field == 3:
            types += packed(data, kind, value)
        elif field == 4:
            rows.append(value)
    if len(types) != len(columns):
        raise Mismatch(f"a DataSet has {len(columns)} columns and {len(types)} types")
    if len(rows) * len(columns) > _MOST:
        raise Mismatch(f"a DataSet of {len(rows)} x {len(columns)} cells; {_MOST} are read")
    found: Found = []
    for i, row in enumerate(rows):
        cells = [value for field, kind, value in walk(data, *row) if field == 1 and kind == LENGTH]
        if len(cells) != len(columns):
            raise Mismatch(f"row {i} of a DataSet has {len(cells)} cells for {len(columns)} columns")
        for name, datatype, cell in zip(columns, types, cells, strict=True):
            found.append((f"[{i}].{name}", _cell(data, datatype, cell)))
    return found


def _cell(data: bytes, datatype: int, span: tuple[int, int]) -> Scalar:
    """The value of one cell; None if it has none."""
    if datatype not in SINGLE:
        raise Mismatch(f"a column of a DataSet has type {datatype}")
    held = p.NOTHING
    for field, kind, value in walk(data, *span):
        if 1 <= field <= 6:
            held = p.value_of(data, field - 1 + p.INT, kind, value)
    return scalar(datatype, held) if held.field else None


def _template(data: bytes, span: tuple[int, int], depth: int) -> Found:
    """The metrics of a template instance, each below the name of the template's metric."""
    if depth >= p.DEEPEST:
        raise Mismatch(f"templates within templates, more than {p.DEEPEST} deep")
    inner: list[p.Metric] = []
    for field, kind, value in walk(data, *span):
        if field == 2 and kind == LENGTH:
            inner.append(p.metric(data, value))
        elif field == 5 and kind == VARINT and value:
            return []  # a definition has no values of its own
    found: Found = []
    for each in inner:
        if each.null:
            found.append((f".{each.name}", None))
        else:
            below = _flatten(data, each.datatype, each.value, depth + 1)
            found += [(f".{each.name}{suffix}", value) for suffix, value in below]
        _bounded(found)
    return found
