"""The common shape of a payload, decoded straight into a typed object: one value, its time and its status.

Arrays of them too. What does not fit (a status in words, a path into an array) is left to `payload`.
"""

import contextlib
import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.times import MixedUnitsError, TimeError, all_to_ns, column_to_ns

_VALUE = int | float | bool | str | None
_TIME = int | float | str | None
_LARGEST_STATUS = 0xFFFFFFFF
_EXACT = 2**53
_AT_ONCE = 100_000  # bytes of arrays: their numbers are small objects for a moment, in memory that is used again
_NANOSECONDS = 1e17  # from here on, an epoch counts nanoseconds: see `times`


class Shape:
    """Decodes payloads that hold a value, a time and a status under fixed keys, or a value and a time for each place.

    Args:
        value: keys down to the value; none: the payload is the value.
        time: keys down to the time; none: payloads have none.
        status: keys down to the StatusCode; none: payloads have none.

    Raises:
        ValueError: if such paths have no one shape.
    """

    def __init__(self, value: Sequence[str], time: Sequence[str], status: Sequence[str]) -> None:
        self._plain = not value
        self._value, self._time, self._status = (_getter(path) for path in (value, time, status))
        if self._plain:
            self._decode = msgspec.json.Decoder[Any](_VALUE).decode
            self._time = self._status = None
        else:
            self._decode = _decoder((value, (_VALUE,)), (time, (_TIME, None)), (status, (int, 0)))
        self._arrays = [  # whole numbers first: they need not be rounded, and a float is refused at once
            (kind, _decoder((value, (list[float],)), (time, (numbers,)), (status, (int, 0))))
            for kind, numbers in (("q", list[int]), ("d", list[float]))
            if value and time
        ]

    def read(self, payloads: list[bytes], signals: list[int], arrival: int, rows: Rows, starts: list[int]) -> int:
        """Add the readings of the first payloads that fit; what `payload` would read is read the same.

        Args:
            payloads: as they came.
            signals: the signal of each.
            arrival: when the first arrived, ns; each later one a nanosecond later.
            rows: where the readings go.
            starts: where the row goes at which each payload starts.

        Returns:
            How many were read; -1 if the first one fits, but something in those that fit cannot be.
        """
        arrays_first = b"[" in payloads[0]  # what does not fit costs an exception
        if not arrays_first and (found := _decode(self._decode, payloads)):
            return self._read_scalars(found, payloads, signals, arrival, rows, starts)
        some = payloads[: max(1, _AT_ONCE // max(len(payloads[0]), 1))]
        for i, (kind, decode) in enumerate(self._arrays):
            found = _decode(decode, some)
            if found:
                if i:
                    self._arrays.reverse()  # the next ones are likely the same
                return self._read_arrays(found, kind, payloads, signals, arrival, rows, starts)
        if arrays_first and (found := _decode(self._decode, payloads)):
            return self._read_scalars(found, payloads, signals, arrival, rows, starts)
        return 0

    def _read_scalars(
        self,
        found: list[Any],
        payloads: list[bytes],
        signals: list[int],
        arrival: int,
        rows: Rows,
        starts: list[int],
    ) -> int:
        n = len(found)
        status = self._statuses(found)
        if status is None or not _are_text(payloads[:n]):
            return -1
        if self._time is None:
            times = array("q", range(arrival, arrival + n))
        else:
            try:
                times = all_to_ns(list(map(self._time, found)), arrival)
            except TimeError:
                return -1
        starts += range(len(rows), len(rows) + n)
        rows.extend(signals[:n], times, found if self._plain else list(map(self._value, found)), status)
        return n

    def _read_arrays(
        self,
        found: list[Any],
        kind: str,
        payloads: list[bytes],
        signals: list[int],
        arrival: int,
        rows: Rows,
        starts: list[int],
    ) -> int:
        values, times = list(map(self._value, found)), list(map(self._time, found))
        n = len(found)
        lengths = list(map(len, values))
        if 0 in lengths or lengths != list(map(len, times)):
            n = next(i for i in range(n) if not lengths[i] == len(times[i]) > 0)
            if n == 0:
                return 0
            found, values, times, lengths = found[:n], values[:n], times[:n], lengths[:n]
        status = self._statuses(found)
        if status is None or not _are_text(payloads[:n]):
            return -1
        numbers = _flat("d", values, lengths)
        column = np.frombuffer(numbers)
        if column.max() >= _EXACT or column.min() <= -_EXACT:
            return -1  # a whole number that a float cannot hold
        try:
            raw = _flat(kind, times, lengths)
            if kind == "d" and np.frombuffer(raw).max() >= _NANOSECONDS:
                return -1  # one of them may have been a whole number, which is exact
            ns = column_to_ns(raw, arrival)
        except (TimeError, MixedUnitsError, OverflowError):
            return -1
        of = array("I", np.repeat(np.array(signals[:n], np.uint32), lengths).tobytes())
        codes: Sequence[int] | int = (
            status if isinstance(status, int) else np.repeat(np.array(status, np.uint32), lengths).tolist()
        )
        starts += accumulate(lengths[:-1], initial=len(rows))
        rows.extend(of, ns, numbers, codes)
        return n

    def _statuses(self, found: list[Any]) -> list[int] | int | None:
        """The StatusCode of each, 0 if all are Good; None if one cannot be."""
        if self._status is None:
            return 0
        status = list(map(self._status, found))
        if not any(status):
            return 0
        return status if min(status) >= 0 and max(status) <= _LARGEST_STATUS else None


def _decode(decode: Any, payloads: list[bytes]) -> list[Any]:
    """The first payloads, as far as they fit."""
    found: list[Any] = []
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found.extend(map(decode, payloads))  # keeps those before the first that does not fit
    return found


def _flat(kind: str, lists: list[list[Any]], lengths: list[int]) -> "array[Any]":
    """All numbers of all lists, in one column.

    Raises:
        OverflowError: if a whole number has more than 64 bits.
    """
    try:
        pieces = [_packer(kind, n)(*each) for each, n in zip(lists, lengths, strict=True)]
    except struct.error as e:
        raise OverflowError(str(e)) from None
    return array(kind, b"".join(pieces))


@lru_cache(maxsize=1000)
def _packer(kind: str, n: int) -> Callable[..., bytes]:
    """Packs `n` numbers: half the time of `array.fromlist`."""
    return struct.Struct(f"{n}{kind}").pack


def _are_text(payloads: list[bytes]) -> bool:
    """Whether all of each is UTF-8; a decoder does not look at what it passes over."""
    if all(map(bytes.isascii, payloads)):
        return True
    try:
        b"\n".join(payloads).decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoder(*leaves: tuple[Sequence[str], tuple[Any, ...]]) -> Any:
    """Decodes an object with a typed leaf (a type, and a default if it may be absent) at the end of each path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        _plant(tree, path, leaf)
    return msgspec.json.Decoder(_typed(tree)).decode


def _getter(path: Sequence[str]) -> Any:
    return attrgetter(".".join(f"f_{key.encode().hex()}" for key in path)) if path else None


def _plant(tree: dict[str, Any], path: Sequence[str], leaf: tuple[Any, ...]) -> None:
    """Put `leaf` (a type, and a default if it may be absent) at `path`."""
    if any(key.isdigit() or key == "*" for key in path):
        raise ValueError("a path that steps into an array has no one shape")
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ValueError("one path ends where another goes on")  # noqa: TRY004  # a matter of the paths' values
    if path:
        if path[-1] in tree:
            raise ValueError("two paths share an end")
        tree[path[-1]] = leaf


def _typed(tree: dict[str, Any]) -> type[msgspec.Struct]:
    """A struct with the keys of `tree`; names that are none in Python are given as hexadecimal digits."""
    fields: list[Any] = []
    rename: dict[str, str] = {}
    for key, leaf in tree.items():
        name = f"f_{key.encode().hex()}"
        rename[name] = key
        fields.append((name, *leaf) if isinstance(leaf, tuple) else (name, _typed(leaf)))
    fields.sort(key=len)  # those that must be there come first
    return msgspec.defstruct("Shape", fields, rename=rename, gc=False)
