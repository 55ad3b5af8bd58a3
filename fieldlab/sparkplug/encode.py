"""Payloads of Sparkplug B: metrics to bytes. What it makes, `payload.decode` reads.

Field numbers: sparkplug_b.proto of Eclipse Tahu (org.eclipse.tahu.protobuf).
"""

import struct

from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug.payload import BOOLEAN, BYTES, DOUBLE, FLOAT, INT, LONG, STRING, Metric, Payload, Value
from fieldlab.sparkplug.wire import FIXED32, FIXED64, LENGTH, VARINT

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_SMALL = tuple(bytes((value,)) for value in range(0x80))
_PROPERTY = 7  # a PropertyValue's fields are those of a metric's value, less this


def varint(value: int) -> bytes:
    """A base-128 number; a negative one in 64 bits of two's complement."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3 | VARINT) + varint(value)


def chunk(field: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(field << 3 | LENGTH) + varint(len(data)) + data


def double(field: int, value: float) -> bytes:
    """A field of 8 bytes; its number is below 16."""
    return bytes((field << 3 | FIXED64,)) + _DOUBLE.pack(value)


def encode(payload: Payload) -> bytes:
    """A payload; values that are spans are taken from its `data`."""
    return assemble(payload.time, payload.seq, [metric(each, payload.data) for each in payload.metrics])


def assemble(time: int | None, seq: int | None, metrics: list[bytes]) -> bytes:
    """A payload of metrics that are bytes already."""
    found = [] if time is None else [number(1, time)]
    found += [chunk(2, each) for each in metrics]
    if seq is not None:
        found.append(number(3, seq))
    return b"".join(found)


def metric(one: Metric, data: bytes = b"") -> bytes:
    """A metric; values that are spans are taken from `data`."""
    found = [chunk(1, one.name.encode())] if one.name else []
    for field, held in ((2, one.alias), (3, one.time), (4, one.datatype or None)):
        if held is not None:
            found.append(number(field, held))
    found += [number(field, 1) for field, on in ((5, one.historical), (6, one.transient), (7, one.null)) if on]
    if one.properties:
        found.append(chunk(9, properties(one.properties)))
    if one.value.field:
        found.append(value(one.value, data))
    return b"".join(found)


def value(held: Value, data: bytes = b"", less: int = 0) -> bytes:
    """A value field; `less` is what its number is less than a metric's."""
    field, raw = held.field - less, held.raw
    if held.field in (INT, LONG, BOOLEAN):
        return number(field, int(raw))
    if held.field == FLOAT:
        return varint(field << 3 | FIXED32) + _FLOAT.pack(raw)
    if held.field == DOUBLE:
        return double(field, raw)
    if held.field == STRING:
        return chunk(field, raw.encode())
    return chunk(field, raw if held.field == BYTES else data[raw[0] : raw[1]])


def properties(held: dict[str, float | int | str | None]) -> bytes:
    """A PropertySet of numbers and texts."""
    return b"".join([*(chunk(1, key.encode()) for key in held), *(chunk(2, _property(v)) for v in held.values())])


def _property(held: float | str | None) -> bytes:
    if held is None:
        return number(1, t.STRING) + number(2, 1)
    if isinstance(held, bool):
        datatype, field = t.BOOLEAN, BOOLEAN
    elif isinstance(held, int):
        small = -(2**31) <= held < 2**31
        datatype, field = (t.INT32, INT) if small else (t.INT64, LONG)  # UInt32: libraries differ in the field
        held = held & 0xFFFFFFFF if small else held
    else:
        datatype, field = (t.STRING, STRING) if isinstance(held, str) else (t.DOUBLE, DOUBLE)
    return number(1, datatype) + value(Value(field, held), less=_PROPERTY)
