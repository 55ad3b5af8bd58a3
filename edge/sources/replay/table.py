"""Reads a recorded table, CSV or Parquet, in chunks of text columns. Delimiter and header are detected."""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.errors import RefusedError

CHUNK = 20_000  # rows in memory at once
_SAMPLE = 50  # rows that delimiter, header and decimal mark are told from
_DELIMITERS = (";", "\t", ",", "|")
MISSING = frozenset({"", "na", "n/a", "null", "none", "-", "nan"})
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is written.

    Attributes:
        columns: names; `c1`, `c2`, … where the file has no header.
        delimiter: of CSV; empty: blanks. None for Parquet.
        header: whether the first row holds names.
        decimal_comma: whether numbers are written 1,5.
    """

    columns: tuple[str, ...]
    delimiter: str | None = None
    header: bool = True
    decimal_comma: bool = False


class Table:
    """A recorded file.

    Attributes:
        path: the file.
        layout: how it is written.
        short_rows: rows so far that had too few or too many cells; what is not there is missing.

    Raises:
        RefusedError: if the file cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.short_rows = 0
        self._parquet = path.suffix.lower() in (".parquet", ".pq")
        self.layout = _parquet_layout(path) if self._parquet else _csv_layout(path)

    def chunks(self) -> Iterator[list[list[str]]]:
        """The cells, a list a column, at most `CHUNK` rows at once."""
        rows = _parquet_rows(self.path) if self._parquet else self._csv_rows()
        while chunk := list(islice(rows, CHUNK)):
            yield [list(column) for column in zip(*chunk, strict=True)]

    def _csv_rows(self) -> Iterator[list[str]]:
        width = len(self.layout.columns)
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = _cells(file, self.layout.delimiter or "")
            if self.layout.header:
                next(rows, None)
            for row in rows:
                if len(row) != width:
                    self.short_rows += 1
                    row = [*row, *[""] * width][:width]  # noqa: PLW2901  mended where it stands
                yield row


def numbers(cells: list[str], *, decimal_comma: bool) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The cells as numbers, NaN where one is missing; and which cells are neither a number nor missing."""
    try:
        return np.array(cells, np.float64), np.zeros(len(cells), bool)
    except ValueError:
        pass
    value, wrong = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
    for i, cell in enumerate(cells):
        text = cell.strip()
        if text.lower() in MISSING:
            continue
        found = _number(text, decimal_comma=decimal_comma)
        if found is None:
            wrong[i] = True
        else:
            value[i] = found
    return value, wrong


def _number(text: str, *, decimal_comma: bool) -> float | None:
    if decimal_comma:
        text = text.replace(",", ".")
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _csv_layout(path: Path) -> Layout:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = [line for line in islice(file, _SAMPLE) if line.strip()]
    except OSError as e:
        raise RefusedError(f"{path} cannot be read: {e.strerror or e}") from e
    if not lines:
        raise RefusedError(f"{path} is empty: there is nothing to replay")
    delimiter = _delimiter(lines)
    rows = list(_cells(iter(lines), delimiter))
    body = rows[1:] or rows
    comma = delimiter != "," and any(_COMMA_NUMBER.fullmatch(cell.strip()) for row in body for cell in row)
    first = [cell.strip() for cell in rows[0]]
    header = not any(_number(cell, decimal_comma=comma) is not None for cell in first)
    if not header:
        return Layout(
            columns=tuple(f"c{i + 1}" for i in range(len(first))),
            delimiter=delimiter,
            header=False,
            decimal_comma=comma,
        )
    names = tuple(cell or f"c{i + 1}" for i, cell in enumerate(first))
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RefusedError(f"{path}: two columns are called {min(twice)!r}; give each its own name")
    return Layout(columns=names, delimiter=delimiter, decimal_comma=comma)


def _delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the most rows into the same number of cells; blanks if none cuts."""
    best, score = "", (0.0, 0)
    for candidate in _DELIMITERS:
        widths = [len(row) for row in _cells(iter(lines), candidate)]
        usual = max(set(widths), key=widths.count)
        share = widths.count(usual) / len(widths)
        if usual > 1 and (share, usual) > score:
            best, score = candidate, (share, usual)
    if best:
        return best
    blanks = [len(line.split()) for line in lines]
    return "" if max(blanks) > 1 and len(set(blanks[1:] or blanks)) == 1 else ","


def _cells(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter:
        return (row for row in csv.reader(lines, delimiter=delimiter) if row)
    return (line.split() for line in lines if line.strip())


def _duckdb() -> Any:
    try:
        import duckdb  # noqa: PLC0415  an extra
    except ModuleNotFoundError as e:
        raise RefusedError("Parquet needs duckdb; install it: pip install 'fieldlab[embedded]'") from e
    return duckdb


def _parquet_layout(path: Path) -> Layout:
    duckdb = _duckdb()
    with duckdb.connect() as db:
        try:
            found = db.execute("SELECT * FROM read_parquet(?) LIMIT 0", [str(path)]).description
        except duckdb.Error as e:
            raise RefusedError(f"{path} cannot be read: {e}") from e
    return Layout(columns=tuple(column[0] for column in found))


def _parquet_rows(path: Path) -> Iterator[list[str]]:
    with _duckdb().connect() as db:
        cursor = db.execute("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM read_parquet(?)", [str(path)])
        while rows := cursor.fetchmany(1000):
            yield from (["" if cell is None else cell for cell in row] for row in rows)
