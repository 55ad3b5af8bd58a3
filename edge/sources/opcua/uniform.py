"""The fast path: a DataChangeNotification whose items all have one type and one set of fields, read by numpy."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import Columns
from edge.sources.opcua.repeats import Memory
from edge.sources.opcua.wire import EPOCH_TICKS, LAST_DATETIME, latest
from fieldlab.model import Batch
from fieldlab.model.status import BAD_TYPE_MISMATCH, is_bad

NO_VALUE: Final = -1  # a DataValue without a value; a builtin type otherwise
NULL: Final = 0
_TYPES: Final = {
    1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8",
    13: "<i8", 19: "<u4",
}  # fmt: skip
_FIRST_ITEM: Final = 4  # behind the count of items
_EXACT: Final = 2**53
_BOOLEAN: Final = 1
_PLAIN: Final = frozenset({2, 3, 4, 5, 6, 7, 10, 11})  # what a float holds as it is
_PLAIN_MASKS: Final = frozenset({0x05, 0x0D})  # value and source time, and perhaps the server's: no status
_DATETIME: Final = 13
_FLOAT: Final = np.dtype("<f4")


@lru_cache(maxsize=2048)
def layout(mask: int, kind: int) -> "np.dtype[Any] | None":
    """An item of MonitoredItemNotification with these DataValue fields, OPC 10000-6, 5.2.2.17; None if it varies.

    Args:
        mask: the DataValue's encoding mask.
        kind: the Variant's encoding byte, or `NO_VALUE`.
    """
    if mask > 0x3F or bool(mask & 0x01) == (kind == NO_VALUE):
        return None
    fields = [("handle", "<u4"), ("mask", "u1")]
    if kind != NO_VALUE:
        fields.append(("kind", "u1"))
        if kind != NULL:
            if kind not in _TYPES:
                return None
            fields.append(("value", _TYPES[kind]))
    for bit, name, form in (
        (0x02, "status", "<u4"),
        (0x04, "source", "<i8"),
        (0x10, "source_pico", "<u2"),
        (0x08, "server", "<i8"),
        (0x20, "server_pico", "<u2"),
    ):
        if mask & bit:
            fields.append((name, form))
    return np.dtype(fields)


def read_uniform(body: bytes, pos: int, end: int, arrival: int, memory: Memory | None = None) -> Columns | None:
    """Read the DataChangeNotification in body[pos:end], or return None if it is not uniform.

    Args:
        body: the whole response.
        pos: where the notification starts.
        end: where it ends.
        arrival: the time for readings without one, ns.
        memory: of the subscription.
    """
    if end - pos < _FIRST_ITEM + 6:
        return None
    count = int.from_bytes(body[pos : pos + 4], "little", signed=True)
    mask, kind = body[pos + 8], body[pos + 9]
    form = layout(mask, kind)
    if form is None or count < 1:
        return None
    diagnostics = pos + _FIRST_ITEM + count * form.itemsize
    if diagnostics + 4 != end or body[diagnostics:end] not in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        return None
    rows = np.frombuffer(body, form, count, pos + _FIRST_ITEM)
    heads = np.ndarray((count,), "<u2", body, pos + _FIRST_ITEM + 4, (form.itemsize,))
    if kind == NO_VALUE:
        if not (rows["mask"] == mask).all():
            return None
    elif not (heads == (mask | kind << 8)).all():
        return None
    return _read_plain(rows, mask, kind, arrival, memory) or read_rows(rows, mask, kind, arrival)


def _read_plain(rows: NDArray[Any], mask: int, kind: int, arrival: int, memory: Memory | None) -> Columns | None:
    """`read_rows` where nothing is to be looked at twice: Good, finite, with a usable source time; else None."""
    if kind not in _PLAIN or mask not in _PLAIN_MASKS:
        return None
    time = rows["source"].astype(np.int64)
    time -= EPOCH_TICKS
    if np.maximum.reduce(time.view(np.uint64)) > latest(arrival) - EPOCH_TICKS:  # what is before 1970 is huge here
        return None
    value = as_doubles(rows["value"])
    if not np.isfinite(value).all():
        return None
    time *= 100
    handles = rows["handle"].astype(np.uint32)
    if memory is not None:
        handles = memory.handles(handles)
    return Columns(Batch(handles, time, value, np.zeros(len(rows), np.uint32)), fast=True)


def as_doubles(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers of any type as Doubles."""
    if raw.dtype != _FLOAT:
        return raw.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a signalling NaN: it becomes a status like every NaN
        return raw.astype(np.float64)


def read_rows(rows: NDArray[Any], mask: int, kind: int, arrival: int) -> Columns:
    """Items of one layout → columns.

    Args:
        rows: the items, (n,) of `layout(mask, kind)`.
        mask: see `layout`.
        kind: see `layout`.
        arrival: the time for readings without one, ns.
    """
    time, replaced, aside = _times(rows, mask, arrival)
    status = rows["status"] if mask & 0x02 else None
    if kind in (NO_VALUE, NULL):
        return _without_value(rows["handle"], time, status, replaced)
    raw = rows["value"]
    if kind == _BOOLEAN:
        value: NDArray[Any] = raw != 0
    elif kind == _DATETIME:
        value = (np.clip(raw, 0, LAST_DATETIME) - EPOCH_TICKS) / 1e7
    else:
        value = as_doubles(raw)
    batch = Batch.of(rows["handle"], time, value, status)
    if kind in (8, 9):
        batch = _with_integers(batch, raw)
    return Columns(batch, times_replaced=replaced, fast=True, aside=aside)


def _without_value(
    handles: NDArray[np.uint32], time: NDArray[np.int64], status: NDArray[np.uint32] | None, replaced: int
) -> Columns:
    """A status that is not Bad promises a value: without one it becomes BadTypeMismatch."""
    known = np.zeros(len(handles), np.uint32) if status is None else np.array(status, np.uint32)
    mismatch = ~is_bad(known)
    known[mismatch] = BAD_TYPE_MISMATCH
    batch = Batch.of(handles, time, np.full(len(handles), np.nan), known)
    return Columns(batch, unkept=int(mismatch.sum()), times_replaced=replaced, fast=True)


def _times(rows: NDArray[Any], mask: int, arrival: int) -> tuple[NDArray[np.int64], int, NDArray[np.int64] | None]:
    """(times in ns, how many are not the source's, see `Columns.aside`)."""
    time = np.full(len(rows), arrival, np.int64)
    replaced = len(rows)
    aside = None
    last = latest(arrival)
    for bit, name, pico_bit in ((0x08, "server", 0x20), (0x04, "source", 0x10)):
        if not mask & bit:
            continue
        ticks = rows[name]
        good = (ticks >= EPOCH_TICKS) & (ticks <= last)
        all_good = bool(good.all())
        ns = ((ticks if all_good else np.where(good, ticks, EPOCH_TICKS)) - EPOCH_TICKS) * 100
        if mask & pico_bit:
            ns += np.minimum(rows[f"{name}_pico"], 9999) // 100
        time = ns if all_good else np.where(good, ns, time)
        if name == "source":
            replaced = 0 if all_good else len(rows) - int(good.sum())
            if replaced:
                absurd = ~good & (ticks != 0)
                if mask & 0x02:
                    absurd &= ~is_bad(rows["status"])  # a status has no time of its own: when it was told will do
                aside = np.where(absurd, ticks, 0) if absurd.any() else None
                replaced -= int(absurd.sum())
    return time, replaced, aside


def _with_integers(batch: Batch, raw: NDArray[Any]) -> Batch:
    """`batch` with the exact integers that a float cannot hold; those beyond i64 stay floats."""
    large = (raw > _EXACT) if raw.dtype.kind == "u" else ((raw > _EXACT) | (raw < -_EXACT))
    if not large.any():
        return batch
    if raw.dtype.kind == "u":
        large &= raw < 2**63
    rows = np.flatnonzero(large & ~is_bad(batch.status)).astype(np.uint32)
    return Batch(
        batch.signal, batch.time, batch.value, batch.status, integer_row=rows, integer=raw[rows].astype(np.int64)
    )
