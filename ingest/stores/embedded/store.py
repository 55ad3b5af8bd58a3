"""Writes records into DuckDB: columnar, one transaction a write, each series and time once."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import duckdb
import numpy as np
import structlog
from numpy.typing import NDArray

from fieldlab.model import Batch, Record, SignalInfo, SignalTable, concat
from fieldlab.model.status import BAD_OUT_OF_RANGE, is_bad
from ingest.stores.base import QUERYABLE, DeadLetter
from ingest.stores.embedded.config import EmbeddedConfig
from ingest.stores.embedded.database import Database
from ingest.stores.embedded.schema import TABLES, Table, values

_NEVER = int(np.iinfo(np.int64).min)
_BETWEEN_SWEEPS = 3600.0
_BETWEEN_REFRESHES = 500_000  # rows written: what DuckDB holds of them nears its limit after some 4 million
_log = structlog.get_logger()

_Rows = dict[tuple[Any, ...], dict[str, Any]]  # (time, *key) → columns


class EmbeddedStore:
    """The embedded store. Writing the same records again changes nothing, whatever their positions.

    A reading is identified by series and time. What is newer than the newest of its series is appended; the rest,
    which is late or comes again, replaces what is there.
    """

    kinds = QUERYABLE

    def __init__(self, name: str, config: EmbeddedConfig, database: Database, signals: SignalTable) -> None:
        self.name = name
        self._config = config
        self._database = database
        self._signals = signals
        self._lock = threading.Lock()
        self._swept = -_BETWEEN_SWEEPS
        self._unrefreshed = 0  # rows written since the file was opened
        self._floor: dict[str, int] = {}  # table → its newest time when the file was opened
        self._newest_of: dict[str, dict[tuple[Any, ...], int]] = {}  # table → key → newest time since then
        self._loaded = False  # after a failure, what memory knows must again be what the file holds
        self._load()

    def _load(self) -> None:
        cursor = self._database.cursor()
        try:
            known = cursor.execute("SELECT site, area, line, machine, signal, id FROM series").fetchall()
            newest = cursor.execute("SELECT series, max(time) FROM reading GROUP BY series").fetchall()
            for table in TABLES.values():
                (last,) = cursor.execute(f'SELECT max(time) FROM "{table.name}"').fetchone() or (None,)  # noqa: S608  # our names
                self._floor[table.name] = _NEVER if last is None else last
                self._newest_of[table.name] = {}
        finally:
            cursor.close()
        self._series_of = {tuple(row[:5]): int(row[5]) for row in known}
        self._newest = np.full(len(known), _NEVER, np.int64)
        for series, newest_time in newest:
            self._newest[series] = newest_time
        self._map = np.empty(0, np.uint32)
        self._loaded = True

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """See `Store`. Nothing is ever refused."""
        with self._lock:
            if not self._loaded:
                self._load()
            due = time.monotonic() - self._swept > _BETWEEN_SWEEPS
            cursor = self._database.cursor()
            try:
                self._write(cursor, records)
                if due:
                    self._sweep(cursor)
            except duckdb.Error as e:
                with suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                cursor.close()
                self._loaded = False
                raise self._database.failed(e) from e
            finally:
                cursor.close()
            self._unrefreshed += sum(len(r.rows) if r.batch is None else len(r.batch) for r in records)
            if (due or self._unrefreshed >= _BETWEEN_REFRESHES) and self._database.refresh():
                self._unrefreshed = 0
        return []

    def close(self) -> None:
        """Close the file; the reader ends with it."""
        with self._lock:
            self._database.close()

    def _write(self, cursor: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> None:
        batches = [r.batch for r in records if r.batch is not None and len(r.batch)]
        cursor.execute("BEGIN")
        newest = self._append(cursor, concat(batches)) if batches else None
        tables: dict[type, _Rows] = defaultdict(dict)
        for record in records:
            for row in record.rows:
                table = TABLES.get(type(row))
                if table is not None:
                    columns = values(row, record.time)
                    tables[type(row)][(columns["time"], *(columns[k] for k in table.key))] = columns
        for kind, rows in tables.items():
            self._upsert(cursor, TABLES[kind], rows)
        cursor.execute("COMMIT")
        if newest is not None:
            self._newest = newest
        for kind, rows in tables.items():
            known = self._newest_of[TABLES[kind].name]
            for at, *key in rows:
                known[tuple(key)] = max(at, known.get(tuple(key), _NEVER))

    def _append(self, cursor: duckdb.DuckDBPyConnection, batch: Batch) -> NDArray[np.int64]:
        """Insert readings; the newest time of each series as it will be after the commit."""
        self._learn(cursor)
        series = self._map[batch.signal]
        order = np.lexsort((batch.time, series))
        again = np.zeros(len(order), np.bool_)  # the same series and time follows: the later one counts
        again[:-1] = (np.diff(series[order]) == 0) & (np.diff(batch.time[order]) == 0)
        if again.any():
            order = order[~again]
        series, at = series[order], batch.time[order]
        late = at <= self._newest[series]
        if late.any():
            _delete(cursor, "reading", {"series": series[late], "time": at[late]})
        value = batch.value[order]
        status = batch.status[order]
        side = np.zeros(len(batch), np.bool_)
        side[batch.text_row] = True
        side[batch.integer_row] = True
        nothing = ~np.isfinite(value) & ~is_bad(status) & ~side[order]
        if nothing.any():
            status = np.where(nothing, np.uint32(BAD_OUT_OF_RANGE), status)
        value = np.where(is_bad(status) | np.isinf(value), np.nan, value)  # NaN becomes NULL
        columns: dict[str, NDArray[Any]] = {"series": series, "time": at, "value": value, "status": status}
        simple = ~side[order] | is_bad(status)
        if simple.all():
            _insert(cursor, "reading", columns)
        else:
            _insert(cursor, "reading", {name: column[simple] for name, column in columns.items()})
            columns = {name: column[~simple] for name, column in columns.items()}
            _insert(cursor, "reading", {**columns, **_side_columns(batch, order[~simple])})
        newest = self._newest.copy()
        np.maximum.at(newest, series, at)
        return newest

    def _upsert(self, cursor: duckdb.DuckDBPyConnection, table: Table, rows: _Rows) -> None:
        """Append rows; those that may be there already replace them. To look for one costs far more than to append."""
        known, floor = self._newest_of[table.name], self._floor[table.name]
        late = [row for (at, *key), row in rows.items() if at <= known.get(tuple(key), floor)]
        if late:
            _delete(cursor, table.name, _columns(table.key, late))
        _insert(cursor, table.name, _columns(table.columns, list(rows.values())))

    def _learn(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Give a series number to signals that were not seen before."""
        known = len(self._map)
        if known == len(self._signals):
            return
        mapped: list[int] = []
        new: list[tuple[int | str, ...]] = []
        for key in self._signals.since(known):
            levels = (key.place.site, key.place.area, key.place.line, key.place.machine, key.name)
            number = self._series_of.setdefault(levels, len(self._series_of))
            mapped.append(number)
            if number >= len(self._newest) + len(new):
                new.append((number, *levels))
        if new:
            names = ("id", "site", "area", "line", "machine", "signal")
            columns = {n: np.array(c, object) for n, c in zip(names, zip(*new, strict=True), strict=True)}
            _insert(cursor, "series", columns)
            self._newest = np.concatenate([self._newest, np.full(len(new), _NEVER, np.int64)])
        self._map = np.concatenate([self._map, np.array(mapped, np.uint32)])

    def _sweep(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Delete what is older than the retention, counted from the newest reading that is not in the future."""
        self._swept = time.monotonic()
        if not len(self._newest):
            return
        oldest = min(int(self._newest.max()), time.time_ns()) - self._config.retention.ns
        if oldest <= -(2**63):
            return
        names = ["reading", *(table.name for kind, table in TABLES.items() if kind is not SignalInfo)]
        for name in names:
            gone = cursor.execute(f'DELETE FROM "{name}" WHERE time < ?', [oldest]).fetchone()  # noqa: S608  # our names
            if gone and gone[0]:
                _log.info("retention_deleted", store=self.name, table=name, rows=gone[0], older_than=oldest)


def _side_columns(batch: Batch, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    texts = batch.texts()
    integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    chosen = rows.tolist()
    return {
        "text": np.array([texts.get(row) for row in chosen], object),
        "integer": np.array([integers.get(row) for row in chosen], object),
    }


def _run(
    cursor: duckdb.DuckDBPyConnection, sql: str, columns: dict[str, NDArray[Any]], given: Sequence[int] = ()
) -> None:
    """Run `sql` with `columns` as the table `incoming`."""
    cursor.register("incoming", columns)
    try:
        cursor.execute(sql, list(given))
    except duckdb.Error:
        with suppress(duckdb.Error):  # the transaction is over
            cursor.unregister("incoming")
        raise
    cursor.unregister("incoming")


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, columns: dict[str, NDArray[Any]]) -> None:
    if len(next(iter(columns.values()))):
        _run(cursor, f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming', columns)  # noqa: S608  # our names


def _delete(cursor: duckdb.DuckDBPyConnection, table: str, key: dict[str, NDArray[Any]]) -> None:
    """Delete the rows that have one of the keys; the range of time lets DuckDB skip most of the table."""
    same = " AND ".join(f't."{name}" = incoming."{name}"' for name in key)
    sql = f'DELETE FROM "{table}" t USING incoming WHERE {same} AND t.time BETWEEN ? AND ?'  # noqa: S608  # our names
    _run(cursor, sql, key, [int(key["time"].min()), int(key["time"].max())])


def _columns(names: Iterable[str], rows: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    columns = {name: np.array([row[name] for row in rows], object) for name in names}
    columns["time"] = np.array([row["time"] for row in rows], np.int64)
    return columns
