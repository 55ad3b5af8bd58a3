"""Answers queries from InfluxDB, in the InfluxQL that 1.x, 2.x and 3 Core share, on /query."""

# ruff: noqa: S608  # InfluxQL has no bound parameters on all servers; every text goes through _literal, the rest is ours

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import msgspec
import numpy as np

from fieldlab.model import (
    ActionRow,
    ChartPoint,
    Finding,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    SignalInfo,
    SignalKey,
    Verdict,
)
from fieldlab.model.status import BAD
from ingest.line_protocol import plain, plain_tag, plain_text, said_as_text
from ingest.stores import rows
from ingest.stores.base import Series, StoreError, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.influxdb.config import InfluxConfig
from ingest.stores.influxdb.transport import Http

_PLACE = ("site", "area", "line", "machine")
_SIGNAL = (*_PLACE, "signal")
_TAGS = frozenset((*_SIGNAL, "chart", "rule", "event", "agent", "action"))
_EARLIEST, _LATEST = -(2**63) + 2, 2**63 - 2  # what InfluxDB takes as a time
_PAGE = 1_000
_MOST_EVENTS = 20_000
_EVENT = (
    *("source", "kind", "id", "condition", "severity", "message", "active", "acknowledged", "retain", "detail"),
    *_PLACE,
)
_FINDING = (
    *("id", "revision", "state", "severity", "statistic", "limit", "limits_version", "part", "detail"),
    *(*_SIGNAL, "chart", "rule"),
)
_VERDICT = (
    *("id", "revision", "verdict", "score", "reasons", "start", "features", "genealogy", "limits_versions"),
    *_PLACE,
)
_PART_EVENT = ("id", "other", "value", "text", *_PLACE, "event")


class InfluxReader:
    """Reads one bucket. Safe to use from several threads."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._http = Http(config)

    def signals(self) -> list[SignalInfo]:
        """See `Reader`."""
        fields = ("unit", "kind", "lsl", "usl", "target", "guarantee", "states")
        found = {key: SignalInfo(key=key) for key in self._telemetry_keys()}
        for row in self._query(f'SELECT {_names(fields)} FROM "signal"{_by(_SIGNAL)} ORDER BY time DESC LIMIT 1'):
            info = rows.signal_of(row)
            found[info.key] = info
        return [found[key] for key in sorted(found)]

    def telemetry(self, key: SignalKey, start: int, end: int, *, limit: int = 10_000) -> Series:
        """See `Reader`."""
        where = f"{_at(key.place)} AND {_equals('signal', key.name)} AND {_between(start, end)}"
        asked = f'SELECT "value", "status", "text" FROM "telemetry" WHERE {where} ORDER BY time DESC LIMIT {limit}'
        newest = [(r["time"], r["value"], r["status"], r["text"]) for r in self._query(asked)]
        newest.reverse()
        return Series(
            np.array([r[0] for r in newest], np.int64),
            np.array([np.nan if r[1] is None else r[1] for r in newest], np.float64),
            np.array([r[2] or 0 for r in newest], np.uint32),
            {i: r[3] for i, r in enumerate(newest) if r[3] is not None},
        )

    def latest(self, start: int) -> dict[SignalKey, Series]:
        """See `Reader`."""
        where = _between(start, _LATEST)
        asked = (
            f'SELECT "value", "status", "text" FROM "telemetry" WHERE {where}{_by(_SIGNAL)} ORDER BY time DESC LIMIT 1'
        )
        return {rows.key_of(row): rows.series_of(row) for row in self._query(asked)}

    def counts(self, start: int = 0, end: int = 2**63 - 1) -> dict[SignalKey, int]:
        """See `Reader`. A reading has a value, or a text, or a Bad status alone."""
        found: dict[SignalKey, int] = {}
        for field, condition in (("value", ""), ("text", ""), ("status", f' AND "status" >= {BAD}')):
            where = _between(start, end) + condition
            for row in self._query(f'SELECT count("{field}") FROM "telemetry" WHERE {where}{_by(_SIGNAL)}'):
                if row["count"]:
                    key = rows.key_of(row)
                    found[key] = found.get(key, 0) + row["count"]
        return found

    def chart_points(self, start: int, end: int, *, chart: str | None = None, limit: int = 10_000) -> list[ChartPoint]:
        """See `Reader`."""
        columns = ("statistic", "center", "ucl", "lcl", "limits_version", *_SIGNAL, "chart")
        where = _between(start, end) + (f" AND {_equals('chart', chart)}" if chart is not None else "")
        asked = f'SELECT {_names(columns)} FROM "chart" WHERE {where} ORDER BY time DESC LIMIT {limit}'
        found = [rows.chart_point_of(row) for row in self._query(asked)]
        return sorted(found, key=lambda p: (p.time, p.place, p.signal, p.chart))

    def findings(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Finding]:
        """See `Reader`."""
        found: list[Finding] = []
        seen: set[str] = set()
        for row in self._pages("finding", _FINDING, start, end):
            finding = rows.finding_of(row)
            if finding.id not in seen and len(seen) >= limit:
                break
            seen.add(finding.id)
            found.append(finding)
        return rows.newest_findings(found, limit)

    def verdicts(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Verdict]:
        """See `Reader`."""
        found: list[Verdict] = []
        seen: set[tuple[Place, str]] = set()
        for row in self._pages("part", _VERDICT, start, end):
            verdict = rows.verdict_of(row)
            if (verdict.place, verdict.id) not in seen and len(seen) >= limit:
                break
            seen.add((verdict.place, verdict.id))
            found.append(verdict)
        return rows.newest_verdicts(found, limit)

    def part_events(self, part: str, *, limit: int = 1_000) -> list[PartEvent]:
        """See `Reader`."""
        where = f'"id" = {_literal(said_as_text(part))}'
        asked = f'SELECT {_names(_PART_EVENT)} FROM "part_event" WHERE {where} ORDER BY time ASC LIMIT {limit}'
        return [rows.part_event_of(row) for row in self._query(asked)]

    def part_verdicts(self, part: str, *, limit: int = 1_000) -> list[Verdict]:
        """See `Reader`."""
        where = f'"id" = {_literal(said_as_text(part))}'
        asked = f'SELECT {_names(_VERDICT)} FROM "part" WHERE {where} ORDER BY time ASC LIMIT {limit}'
        return sorted((rows.verdict_of(row) for row in self._query(asked)), key=lambda v: (v.time, v.revision))

    def consumers(self, other: str, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[PartEvent]:
        """See `Reader`."""
        said = f'"other" = {_literal(said_as_text(other))} AND {_equals("event", "consume")}'
        where = f"{said} AND {_between(start, end)}"
        asked = f'SELECT {_names(_PART_EVENT)} FROM "part_event" WHERE {where} ORDER BY time DESC LIMIT {limit}'
        return sorted((rows.part_event_of(row) for row in self._query(asked)), key=lambda e: (e.time, e.place))

    def finding(self, finding_id: str) -> list[Finding]:
        """See `Reader`."""
        where = f'"id" = {_literal(said_as_text(finding_id))}'
        asked = f'SELECT {_names(_FINDING)} FROM "finding" WHERE {where} ORDER BY time ASC'
        return sorted((rows.finding_of(row) for row in self._query(asked)), key=lambda f: f.revision)

    def machine_states(self) -> list[MachineState]:
        """See `Reader`."""
        asked = f'SELECT "state" FROM "machine_state"{_by(_PLACE)} ORDER BY time DESC LIMIT 1'
        return sorted((rows.machine_state_of(row) for row in self._query(asked)), key=lambda s: s.place)

    def events(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[MachineEvent]:
        """See `Reader`."""
        asked = f'SELECT {_names(_EVENT)} FROM "event" WHERE {_between(start, end)} ORDER BY time DESC LIMIT {limit}'
        return sorted((rows.event_of(row) for row in self._query(asked)), key=lambda e: (-e.time, e.place))

    def conditions(self, *, limit: int = 1_000) -> list[MachineEvent]:
        """See `Reader`. Conditions that said nothing in the newest 20,000 events of conditions are left out."""
        found = self._pages("event", _EVENT, 0, _LATEST, more=" AND \"condition\" != ''")
        return rows.retained(map(rows.event_of, islice(found, _MOST_EVENTS)), limit)

    def actions(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[ActionRow]:
        """See `Reader`. A result has the time of its intent, and so has replaced it."""
        columns = ("id", "trigger", "target", "value", "outcome", "detail", *_PLACE, "action")
        asked = f'SELECT {_names(columns)} FROM "action" WHERE {_between(start, end)} ORDER BY time DESC LIMIT {limit}'
        return sorted((rows.action_of(row) for row in self._query(asked)), key=lambda a: (-a.time, a.id))

    def probe(self) -> None:
        """Ask for next to nothing: does the bucket exist, and may we read it?

        Raises:
            StoreError: if not, with the server's words.
        """
        for _ in self._query('SELECT "value" FROM "telemetry" LIMIT 1'):
            pass

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def _telemetry_keys(self) -> set[SignalKey]:
        return {
            rows.key_of(row)
            for field in ("value", "text", "status")
            for row in self._query(f'SELECT last("{field}") FROM "telemetry"{_by(_SIGNAL)}')
        }

    def _pages(
        self, measurement: str, columns: tuple[str, ...], start: int, end: int, *, more: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Rows of a measurement, newest first, read in pages; `more` conditions may narrow them."""
        where = _between(start, end) + more
        asked = f'SELECT {_names(columns)} FROM "{measurement}" WHERE {where} ORDER BY time DESC'
        for page in count():
            n = 0
            for row in self._query(f"{asked} LIMIT {_PAGE} OFFSET {page * _PAGE}"):
                n += 1
                yield row
            if n < _PAGE:
                return

    def _query(self, influxql: str) -> Iterator[dict[str, Any]]:
        """Rows of the answer, tags and columns by name, `time` in ns."""
        fields = {"db": self._config.bucket, "epoch": "ns", "q": influxql}
        answer, body = self._http.request("GET", "/query", fields, None)
        if answer.status != 200:
            said = f"{self._config.url}/query answered {answer.status} {answer.words}"
            if answer.status >= 500 or answer.status == 429:
                raise StoreUnavailableError(said, retry_after=answer.retry_after)
            raise StoreMisconfiguredError(f"{said}; may the token read {self._config.bucket!r}?")
        try:
            (result,) = msgspec.json.decode(body)["results"]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as e:
            raise StoreMisconfiguredError(f"{self._config.url}/query does not speak InfluxQL") from e
        if "error" in result:
            raise StoreError(f"{self._config.url}: {result['error']}")
        for series in result.get("series", ()):
            tags = {name: plain(value) for name, value in series.get("tags", {}).items()}
            columns = series["columns"]
            for values in series.get("values", ()):
                row = {c: _said(c, v) for c, v in zip(columns, values, strict=True)}
                yield {**tags, **row}


def _said(column: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return plain(value) if column in _TAGS else plain_text(value)


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _by(tags: tuple[str, ...]) -> str:
    return f" GROUP BY {_names(tags)}"


def _at(place: Place) -> str:
    return " AND ".join(_equals(tag, getattr(place, tag)) for tag in _PLACE)


def _equals(tag: str, value: str) -> str:
    return f'"{tag}" = {_literal(plain_tag(value))}'


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _between(start: int, end: int) -> str:
    return f"time >= {min(max(start, _EARLIEST), _LATEST)} AND time < {min(max(end, _EARLIEST), _LATEST)}"
