"""The wire format of Protocol Buffers, as far as Sparkplug B needs it, read with bounds.

Written by hand: one small message does not justify the `protobuf` package, its generated module and its native code.
Source: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from typing import Any

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")


class Wire(ValueError):  # noqa: N818  # the reason in a dead letter
    """Bytes that are no Protocol Buffers message of the kind that was expected."""


def varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """A base-128 number below 2**64 at `at`, and where it ends.

    Raises:
        Wire: if it does not end before `stop`, or is too long.
    """
    value = shift = 0
    while at < stop:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise Wire(f"a number at byte {at} has more than 10 bytes")
    raise Wire("it ends within a number")


def walk(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, Any]]:
    """The fields of the message in `data[at:stop]`: (number, wire type, value).

    The value is an int (VARINT), the bytes (FIXED64, FIXED32), or (start, stop) in `data` (LENGTH).

    Raises:
        Wire: at the first field that cannot be read.
    """
    while at < stop:
        key = data[at]
        at += 1
        if key > 0x7F:
            key, at = varint(data, at - 1, stop)
        number, kind = key >> 3, key & 7
        if not number:
            raise Wire(f"field 0 at byte {at}")
        if kind == VARINT:
            value, at = varint(data, at, stop)
            yield number, kind, value
        elif kind == LENGTH:
            size, at = varint(data, at, stop)
            if size > stop - at:
                raise Wire(f"field {number} at byte {at} has {size} bytes, and {stop - at} are left")
            yield number, kind, (at, at + size)
            at += size
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            if size > stop - at:
                raise Wire(f"it ends within field {number}")
            yield number, kind, data[at : at + size]
            at += size
        else:
            raise Wire(f"field {number} at byte {at} has wire type {kind}")


def text(data: bytes, span: tuple[int, int]) -> str:
    """The text in `data[start:stop]`.

    Raises:
        Wire: if it is not UTF-8.
    """
    try:
        return data[span[0] : span[1]].decode()
    except UnicodeDecodeError as e:
        raise Wire(f"text that is not UTF-8: {e}") from None


def number(data: bytes, kind: int, value: Any) -> float | int | str:
    """The value of a field of a known type: an int, a float of 4 or 8 bytes, or text.

    Raises:
        Wire: if it is text that is not UTF-8.
    """
    if kind == VARINT:
        found: int = value
        return found
    if kind == LENGTH:
        return text(data, value)
    unpacked: float = (_FLOAT if kind == FIXED32 else _DOUBLE).unpack(value)[0]
    return unpacked


def packed(data: bytes, kind: int, value: Any) -> list[int]:
    """The numbers of a repeated field, one or packed.

    Raises:
        Wire: if it is neither.
    """
    if kind == VARINT:
        return [value]
    if kind != LENGTH:
        raise Wire("a list of numbers has another wire type")
    at, stop = value
    found = []
    while at < stop:
        one, at = varint(data, at, stop)
        found.append(one)
    return found
