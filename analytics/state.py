"""Saves and restores numpy arrays inside msgpack, bit for bit."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Packed = tuple[str, tuple[int, ...], bytes]


def pack(array: NDArray[Any]) -> Packed:
    """An array as (dtype, shape, bytes)."""
    return array.dtype.str, array.shape, array.tobytes()


def unpack(packed: Any) -> NDArray[Any]:
    """The array of `pack`, writable."""
    dtype, shape, data = packed
    return np.frombuffer(data, dtype).reshape(shape).copy()


def grow(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """`array` with at least `rows` rows, the new ones zero; capacity doubles, so that growing one by one is cheap."""
    if rows <= len(array):
        return array
    bigger = np.zeros((max(rows, 2 * len(array), 8), *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger


def encode(value: Any) -> bytes:
    """Msgpack of plain values."""
    return msgspec.msgpack.encode(value)
