"""Readings whose source time cannot be: before 1970, or more than a day ahead. Kept aside, with the server's time.

A server that has no source time sends 0 or nothing: such readings are stored with the server's time, or that of
arrival, and counted as `times_replaced`. Any other time is a statement that is wrong, and nobody knows by how much.
"""

import datetime as dt
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import SCALAR, Columns, Opaque
from edge.sources.opcua.signals import SignalMap
from edge.sources.opcua.wire import EPOCH_TICKS
from fieldlab.model import Batch, BatchBuilder
from ingest.stores.base import DeadLetter

_YEAR_ONE = dt.datetime(1601, 1, 1, tzinfo=dt.UTC)


class Aside(msgspec.Struct, frozen=True):
    """What the letter of such a reading holds, as JSON.

    Attributes:
        time: the server's time, or that of arrival, ns.
        source: the source's time, as 100 ns since 1601.
        value: number or text; None if it has none.
        status: StatusCode.
    """

    time: int
    source: int
    value: int | float | str | None
    status: int


def split(columns: Columns) -> tuple[Columns, Columns | None]:
    """(what has a time that can be, the rest)."""
    opaque = tuple(one for one in columns.opaque if not one.aside)
    wrong = tuple(one for one in columns.opaque if one.aside)
    if columns.aside is None and not wrong:
        return columns, None
    aside = np.zeros(len(columns.batch), np.int64) if columns.aside is None else columns.aside
    return _take(columns, aside == 0, aside, opaque), _take(columns, aside != 0, aside, wrong)


def _take(columns: Columns, chosen: NDArray[np.bool_], aside: NDArray[np.int64], opaque: tuple[Opaque, ...]) -> Columns:
    rows = np.flatnonzero(chosen)
    return msgspec.structs.replace(
        columns,
        batch=columns.batch.take(rows),
        element=None if columns.element is None else columns.element[rows],
        aside=aside[rows],
        opaque=opaque,
    )


def letters(name: str, columns: Columns, signals: SignalMap) -> list[DeadLetter]:
    """A dead letter for each signal of which `columns` has readings.

    Args:
        name: the source's name.
        columns: readings whose `aside` says when they claim to be; no structures.
        signals: which handle is which signal.
    """
    assert columns.aside is not None
    element = np.full(len(columns.batch), SCALAR, np.int32) if columns.element is None else columns.element
    found = []
    for handle, part in sorted(set(zip(columns.batch.signal.tolist(), element.tolist(), strict=True))):
        rows = np.flatnonzero((columns.batch.signal == handle) & (element == part))
        one = msgspec.structs.replace(columns, batch=columns.batch.take(rows), element=element[rows], opaque=())
        batch = signals.to_batch(one)
        found += list(of_batch(name, batch, np.resize(columns.aside[rows], len(batch)), signals))
    return found


def of_batch(name: str, batch: Batch, source: NDArray[np.int64], signals: SignalMap) -> Iterator[DeadLetter]:
    """A letter for each signal of `batch`, whose rows claim to be of `source` (ticks)."""
    texts = batch.texts()
    integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    for index in np.unique(batch.signal).tolist():
        rows = np.flatnonzero(batch.signal == index).tolist()
        held = []
        for row in rows:
            number = float(batch.value[row])
            value = texts.get(row, integers.get(row, None if np.isnan(number) else number))
            held.append(Aside(int(batch.time[row]), int(source[row]), value, int(batch.status[row])))
        key = signals.key_of(index)
        first = held[0]
        what = "before 1970" if first.source < EPOCH_TICKS else "more than a day ahead"
        yield DeadLetter(
            store=name,
            machine=key.place.path,
            signal=key.name,
            readings=len(held),
            reason=f"the source time {when(first.source)} is {what}: set the clock of the device",
            first=min(one.time for one in held),
            last=max(one.time for one in held),
            body=msgspec.json.encode(held),
            counts={index: len(held)},
        )


def again(index: int, letter: DeadLetter) -> Batch:
    """The readings of such a letter, with the server's time.

    Raises:
        msgspec.DecodeError: if it holds something else.
    """
    builder = BatchBuilder()
    for one in msgspec.json.decode(letter.body, type=list[Aside]):
        builder.add(index, one.time, one.value, one.status)
    return builder.build()


def when(ticks: int) -> str:
    """A DateTime as text."""
    try:
        return (_YEAR_ONE + dt.timedelta(microseconds=ticks // 10)).isoformat(timespec="seconds")
    except OverflowError:
        return f"{ticks} (100 ns since 1601)"
