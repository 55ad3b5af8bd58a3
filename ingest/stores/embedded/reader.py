"""Answers queries from the embedded store, also while it writes: each call has a cursor and a snapshot of its own."""

# ruff: noqa: S608  # names and conditions are ours; every value is a bound parameter

from typing import Any

import numpy as np

from fieldlab.model import (
    ActionRow,
    ChartPoint,
    Finding,
    MachineEvent,
    MachineState,
    PartEvent,
    SignalInfo,
    SignalKey,
    Verdict,
)
from ingest.stores import rows
from ingest.stores.base import Series
from ingest.stores.embedded.database import Database

_NEWEST = "row_number() OVER (PARTITION BY {} ORDER BY time DESC, rowid DESC) = 1"
_PLACE = "site, area, line, machine"


class EmbeddedReader:
    """Reads the file that the store holds open. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def signals(self) -> list[SignalInfo]:
        """See `Reader`."""
        listed = self._rows("SELECT * FROM series WHERE id IN (SELECT DISTINCT series FROM reading)")
        found = {rows.key_of(row): SignalInfo(key=rows.key_of(row)) for row in listed}
        for row in self._rows(f"SELECT * FROM signal QUALIFY {_NEWEST.format(_PLACE + ', signal')}"):
            info = rows.signal_of(row)
            found[info.key] = info
        return [found[key] for key in sorted(found)]

    def telemetry(self, key: SignalKey, start: int, end: int, *, limit: int = 10_000) -> Series:
        """See `Reader`."""
        place = key.place
        chosen = "SELECT id FROM series WHERE (site, area, line, machine, signal) = (?, ?, ?, ?, ?)"
        asked = (
            f"SELECT time, value, status, text FROM reading WHERE series = ({chosen}) AND time >= ? AND time < ? "
            "ORDER BY time DESC LIMIT ?"
        )
        given = [place.site, place.area, place.line, place.machine, key.name, start, end, limit]
        with self._database.reading() as cursor:
            found = cursor.execute(asked, given).fetchnumpy()
        columns = {name: np.ma.asarray(column)[::-1] for name, column in found.items()}
        said = np.flatnonzero(~np.ma.getmaskarray(columns["text"])).tolist()
        return Series(
            np.ascontiguousarray(columns["time"].data, np.int64),
            np.ascontiguousarray(columns["value"].filled(np.nan), np.float64),
            np.ascontiguousarray(columns["status"].data, np.uint32),
            {row: columns["text"][row] for row in said},
        )

    def latest(self, start: int) -> dict[SignalKey, Series]:
        """See `Reader`."""
        # A window over all readings would hold them in memory; this holds one a series, in a fortieth of the time.
        row = "{'time': time, 'value': value, 'status': status, 'text': text}"
        newest = f"SELECT series, unnest(arg_max({row}, time)) FROM reading WHERE time >= ? GROUP BY series"
        asked = f"SELECT s.*, r.time, r.value, r.status, r.text FROM ({newest}) r JOIN series s ON s.id = r.series"
        return {rows.key_of(row): rows.series_of(row) for row in self._rows(asked, start)}

    def counts(self, start: int = 0, end: int = 2**63 - 1) -> dict[SignalKey, int]:
        """See `Reader`."""
        asked = (
            "SELECT s.*, n FROM (SELECT series, count(*) AS n FROM reading WHERE time >= ? AND time < ? "
            "GROUP BY series) JOIN series s ON s.id = series"
        )
        return {rows.key_of(row): row["n"] for row in self._rows(asked, start, end)}

    def chart_points(self, start: int, end: int, *, chart: str | None = None, limit: int = 10_000) -> list[ChartPoint]:
        """See `Reader`."""
        asked = (
            "SELECT * FROM chart WHERE time >= ? AND time < ? AND chart = ifnull(?, chart) ORDER BY time DESC LIMIT ?"
        )
        found = [rows.chart_point_of(row) for row in self._rows(asked, start, end, chart, limit)]
        return sorted(found, key=lambda p: (p.time, p.place, p.signal, p.chart))

    def findings(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Finding]:
        """See `Reader`."""
        found = self._newest_revisions("finding", "id", start, end, limit)
        return rows.newest_findings(map(rows.finding_of, found), limit)

    def verdicts(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Verdict]:
        """See `Reader`."""
        found = self._newest_revisions("part", f"{_PLACE}, id", start, end, limit)
        return rows.newest_verdicts(map(rows.verdict_of, found), limit)

    def part_events(self, part: str, *, limit: int = 1_000) -> list[PartEvent]:
        """See `Reader`."""
        asked = "SELECT * FROM part_event WHERE id = ? ORDER BY time LIMIT ?"
        return [rows.part_event_of(row) for row in self._rows(asked, part, limit)]

    def part_verdicts(self, part: str, *, limit: int = 1_000) -> list[Verdict]:
        """See `Reader`."""
        asked = "SELECT * FROM part WHERE id = ? ORDER BY time, revision LIMIT ?"
        return [rows.verdict_of(row) for row in self._rows(asked, part, limit)]

    def consumers(self, other: str, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[PartEvent]:
        """See `Reader`."""
        where = "event = 'consume' AND other = ? AND time >= ? AND time < ?"
        asked = f"SELECT * FROM part_event WHERE {where} ORDER BY time DESC, {_PLACE} LIMIT ?"
        found = [rows.part_event_of(row) for row in self._rows(asked, other, start, end, limit)]
        return sorted(found, key=lambda e: (e.time, e.place))

    def finding(self, finding_id: str) -> list[Finding]:
        """See `Reader`."""
        found = self._rows("SELECT * FROM finding WHERE id = ? ORDER BY revision", finding_id)
        return [rows.finding_of(row) for row in found]

    def machine_states(self) -> list[MachineState]:
        """See `Reader`."""
        asked = f"SELECT * FROM machine_state QUALIFY {_NEWEST.format(_PLACE)} ORDER BY {_PLACE}"
        return [rows.machine_state_of(row) for row in self._rows(asked)]

    def events(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[MachineEvent]:
        """See `Reader`."""
        asked = f"SELECT * FROM event WHERE time >= ? AND time < ? ORDER BY time DESC, {_PLACE} LIMIT ?"
        return [rows.event_of(row) for row in self._rows(asked, start, end, limit)]

    def conditions(self, *, limit: int = 1_000) -> list[MachineEvent]:
        """See `Reader`."""
        branch = """ifnull(regexp_extract(detail, '"branch":"([^"]*)"', 1), '')"""
        newest = _NEWEST.format(f"{_PLACE}, condition, {branch}")
        found = f"SELECT * FROM event WHERE condition <> '' QUALIFY {newest}"
        asked = f"SELECT * FROM ({found}) WHERE retain ORDER BY time DESC, {_PLACE} LIMIT ?"
        return [rows.event_of(row) for row in self._rows(asked, limit)]

    def actions(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[ActionRow]:
        """See `Reader`. A result has the time of its intent, and so has replaced it."""
        asked = "SELECT * FROM action WHERE time >= ? AND time < ? ORDER BY time DESC, id LIMIT ?"
        return [rows.action_of(row) for row in self._rows(asked, start, end, limit)]

    def _newest_revisions(self, table: str, key: str, start: int, end: int, limit: int) -> list[dict[str, Any]]:
        newest = f"row_number() OVER (PARTITION BY {key} ORDER BY revision DESC) = 1"
        asked = f"SELECT * FROM {table} WHERE time >= ? AND time < ? QUALIFY {newest} ORDER BY time DESC, id LIMIT ?"
        return self._rows(asked, start, end, limit)

    def _rows(self, sql: str, *given: Any) -> list[dict[str, Any]]:
        """Rows of the answer, by column.

        Raises:
            StoreUnavailableError: if the store is closed, or the query fails.
        """
        with self._database.reading() as cursor:
            cursor.execute(sql, list(given))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
