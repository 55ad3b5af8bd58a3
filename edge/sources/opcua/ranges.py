"""A part of an array: `range = "2:5"`, the NumericRange of OPC 10000-4, 7.27, of one dimension."""

import re

import msgspec
import numpy as np

from edge.sources.opcua.columns import SCALAR, Columns

_RANGE = re.compile(r"(\d{1,10})(?::(\d{1,10}))?")
_INDEX = re.compile(r"\[(\d+)\]")


def first_of(text: str) -> int:
    """The index of the first element of a range; 0 for the whole value.

    Raises:
        ValueError: if it is none.
    """
    if not text:
        return 0
    if "," in text:
        raise ValueError(f"{text!r} is the range of a matrix: only those of one dimension can be read")
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} must look like "3" or "2:5"')
    first = int(match[1])
    if max(first, int(match[2] or 0)) >= 2**32 or (match[2] and first >= int(match[2])):
        raise ValueError(f"{text!r} must name its lower index first")
    return first


def cut(columns: Columns, text: str) -> tuple[Columns, bool]:
    """What a range leaves of whole values, as the server would have cut them; whether that could be told of all.

    HistoryRead takes a range as well, but there are servers that ignore it there, which the answer does not show.
    """
    first = first_of(text)
    last = int(text.partition(":")[2] or first)
    n = len(columns.batch)
    element = np.full(n, SCALAR, np.int32) if columns.element is None else columns.element
    status = np.isnan(columns.batch.value)
    status[columns.batch.text_row] = False
    inside = (element >= first) & (element <= last)
    rows = np.flatnonzero(inside | ((element == SCALAR) & status))
    whole = not columns.opaque and not ((element == SCALAR) & ~status).any()
    element = np.where(element == SCALAR, SCALAR, element - first).astype(np.int32)[rows]
    aside = None if columns.aside is None else columns.aside[rows]
    batch = columns.batch.take(rows)
    return msgspec.structs.replace(columns, batch=batch, element=element, aside=aside, opaque=()), whole


def true_path(path: str, first: int) -> str:
    """The path of a value within a part of an array, such as `[0].x`, as it is in the whole one."""
    return _INDEX.sub(lambda m: f"[{int(m[1]) + first}]", path, count=1) if first and path.startswith("[") else path
