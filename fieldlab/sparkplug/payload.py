"""Payloads of Sparkplug B: bytes to metrics.

Field numbers: sparkplug_b.proto of Eclipse Tahu (org.eclipse.tahu.protobuf). A metric's value stays as it is on
the wire until its type is known; see `values`.
"""

from typing import Any

import msgspec

from fieldlab.sparkplug.wire import FIXED32, FIXED64, LENGTH, VARINT, Wire, number, text, walk

OCTETS_MAX = 16_000_000  # bytes of a payload
METRICS_MAX = 100_000  # in a payload
DEEPEST = 8  # templates within templates

# The value fields of a metric, in the order of the oneof; DataSetValue, PropertyValue and Parameter begin elsewhere.
INT, LONG, FLOAT, DOUBLE, BOOLEAN, STRING, BYTES, DATASET, TEMPLATE, EXTENSION = range(10, 20)
_WIRE = {INT: VARINT, LONG: VARINT, FLOAT: FIXED32, DOUBLE: FIXED64, BOOLEAN: VARINT}
_HEADS = {1: LENGTH, 2: VARINT, 3: VARINT, 4: VARINT, 5: VARINT, 6: VARINT, 7: VARINT, 8: LENGTH, 9: LENGTH}


class Value(msgspec.Struct, frozen=True):
    """A value as it is on the wire.

    Attributes:
        field: which of the value fields, `INT` to `EXTENSION`; 0: there is none.
        raw: an int (INT, LONG, BOOLEAN), float, str, bytes (BYTES), or (start, stop) in the payload.
    """

    field: int = 0
    raw: Any = None


NOTHING = Value()


class Metric(msgspec.Struct, frozen=True):
    """One metric of a payload.

    Attributes:
        name: empty if it has only an alias.
        alias: None if it has none.
        time: ms since 1970, or None.
        datatype: 0 if it is not said.
        historical: a value of the past, kept by the edge node.
        transient: the edge node asks not to keep it in a history.
        null: it has no value.
        value: its value.
        properties: name → number, text or None; sets within sets are left out.
    """

    name: str
    alias: int | None
    time: int | None
    datatype: int
    historical: bool
    transient: bool
    null: bool
    value: Value
    properties: dict[str, float | int | str | None]


class Payload(msgspec.Struct, frozen=True):
    """A payload.

    Attributes:
        time: ms since 1970, or None.
        seq: 0 to 255, or None.
        metrics: in their order.
        data: the bytes that the spans of values point into.
    """

    time: int | None
    seq: int | None
    metrics: tuple[Metric, ...]
    data: bytes


def decode(data: bytes) -> Payload:
    """Read a payload.

    Raises:
        ValueError: with the reason.
    """
    if len(data) > OCTETS_MAX:
        raise Wire(f"not read: a payload of {len(data)} bytes, more than {OCTETS_MAX}")
    try:
        return _decode(data)
    except Wire as e:
        raise Wire(f"not Sparkplug B: {e}") from None


def _decode(data: bytes) -> Payload:
    time = seq = None
    metrics: list[Metric] = []
    for field, kind, value in walk(data, 0, len(data)):
        if field == 2 and kind == LENGTH:
            metrics.append(metric(data, value))
            if len(metrics) > METRICS_MAX:
                raise Wire(f"more than {METRICS_MAX} metrics")
        elif field == 1 and kind == VARINT:
            time = value
        elif field == 3 and kind == VARINT:
            seq = value
        elif field in (1, 2, 3):
            raise Wire(f"field {field} of the payload has wire type {kind}")
    if seq is not None and seq > 255:
        raise Wire(f"seq is {seq}; it goes from 0 to 255")
    return Payload(time, seq, tuple(metrics), data)


def metric(data: bytes, span: tuple[int, int]) -> Metric:
    """The metric in `data[start:stop]`.

    Raises:
        Wire: with the reason.
    """
    found: dict[int, Any] = {}
    held = NOTHING
    for field, kind, value in walk(data, *span):
        if field in _HEADS:
            if kind != _HEADS[field]:
                raise Wire(f"field {field} of a metric has wire type {kind}")
            found[field] = value
        elif INT <= field <= EXTENSION:
            held = value_of(data, field, kind, value)
    get = found.get
    return Metric(
        text(data, get(1, (0, 0))),
        get(2),
        get(3),
        get(4, 0) & 0xFFFFFFFF,
        bool(get(5)),
        bool(get(6)),
        bool(get(7)),
        held,
        properties(data, found[9]) if 9 in found else {},
    )


def value_of(data: bytes, field: int, kind: int, value: Any) -> Value:
    """The value of a oneof whose fields were moved to `INT` to `EXTENSION`.

    Raises:
        Wire: if the wire type is not that of the field, or text is not UTF-8.
    """
    if kind != _WIRE.get(field, LENGTH):
        raise Wire(f"a value has wire type {kind}, which is not that of its field")
    if field == BYTES:
        return Value(field, data[value[0] : value[1]])
    if field in (DATASET, TEMPLATE, EXTENSION):
        return Value(field, value)
    raw = number(data, kind, value)
    return Value(field, raw & 0xFFFFFFFF if field == INT and isinstance(raw, int) else raw)


def properties(data: bytes, span: tuple[int, int]) -> dict[str, float | int | str | None]:
    """The plain values of a PropertySet by their keys.

    Raises:
        Wire: with the reason.
    """
    keys: list[str] = []
    values: list[float | int | str | None] = []
    for field, kind, value in walk(data, *span):
        if field in (1, 2) and kind != LENGTH:
            raise Wire(f"field {field} of a property set has wire type {kind}")
        if field == 1:
            keys.append(text(data, value))
        elif field == 2:
            values.append(_property(data, value))
    if len(keys) != len(values):
        raise Wire(f"a property set has {len(keys)} keys and {len(values)} values")
    return dict(zip(keys, values, strict=True))


def _property(data: bytes, span: tuple[int, int]) -> float | int | str | None:
    """The value of a PropertyValue; None for null and for sets."""
    held: float | int | str | None = None
    null = False
    datatype = 0
    for field, kind, value in walk(data, *span):
        if field == 1 and kind == VARINT:
            datatype = value
        elif field == 2 and kind == VARINT:
            null = bool(value)
        elif 3 <= field <= 8:
            held = value_of(data, field - 3 + INT, kind, value).raw
    if null or held is None:
        return None
    if datatype in (1, 2, 3) and isinstance(held, int) and held >= 2**31:
        return held - 2**32  # a signed number of 32 bits
    return held
