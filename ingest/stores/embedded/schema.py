"""The tables of the embedded store: the measurements and columns of ingest/README.md; `time` is ns since 1970, UTC."""

from typing import Any

import msgspec

from fieldlab.model import (
    ActionRow,
    AgentRow,
    ChartPoint,
    Finding,
    Gap,
    LedgerRow,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    SignalInfo,
    SignalKey,
    Verdict,
)
from fieldlab.model.record import Row
from ingest.line_protocol import REASONS

VERSION = 1


class Table(msgspec.Struct, frozen=True):
    """A measurement that is not telemetry.

    Attributes:
        name: of the measurement.
        columns: name → SQL type, `time` left out.
        key: the columns that, with `time`, identify a row: written again, it replaces the older one.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


_PLACE = dict.fromkeys(("site", "area", "line", "machine"), "VARCHAR")
_SIGNAL = {**_PLACE, "signal": "VARCHAR"}
_TOTALS = ("received", "committed", "stored", "bad", "overflow", "duplicate", "dead")

TABLES: dict[type, Table] = {
    SignalInfo: Table(
        "signal",
        {
            **_SIGNAL,
            **dict.fromkeys(("unit", "kind"), "VARCHAR"),
            **dict.fromkeys(("lsl", "usl", "target"), "DOUBLE"),
            **dict.fromkeys(("guarantee", "states"), "VARCHAR"),
        },
        tuple(_SIGNAL),
    ),
    ChartPoint: Table(
        "chart",
        {
            **_SIGNAL,
            "chart": "VARCHAR",
            **dict.fromkeys(("statistic", "center", "ucl", "lcl"), "DOUBLE"),
            "limits_version": "BIGINT",
        },
        (*_SIGNAL, "chart"),
    ),
    Finding: Table(
        "finding",
        {
            **_SIGNAL,
            **dict.fromkeys(("chart", "rule", "id"), "VARCHAR"),
            "revision": "BIGINT",
            **dict.fromkeys(("state", "severity"), "VARCHAR"),
            **dict.fromkeys(("statistic", "limit"), "DOUBLE"),
            "limits_version": "BIGINT",
            **dict.fromkeys(("part", "detail"), "VARCHAR"),
        },
        (*_SIGNAL, "chart", "rule"),
    ),
    Verdict: Table(
        "part",
        {
            **_PLACE,
            "id": "VARCHAR",
            "revision": "BIGINT",
            "verdict": "VARCHAR",
            "score": "DOUBLE",
            "reasons": "VARCHAR",
            "start": "BIGINT",
            **dict.fromkeys(("features", "genealogy", "limits_versions"), "VARCHAR"),
        },
        tuple(_PLACE),
    ),
    PartEvent: Table(
        "part_event",
        {**_PLACE, **dict.fromkeys(("event", "id", "other"), "VARCHAR"), "value": "DOUBLE", "text": "VARCHAR"},
        (*_PLACE, "event"),
    ),
    MachineState: Table("machine_state", {**_PLACE, "state": "VARCHAR"}, tuple(_PLACE)),
    LedgerRow: Table(
        "ledger", {**_SIGNAL, "agent": "VARCHAR", **dict.fromkeys(_TOTALS, "BIGINT")}, (*_SIGNAL, "agent")
    ),
    Gap: Table(
        "gap",
        {
            **_SIGNAL,
            **dict.fromkeys(("agent", "cause", "id", "state", "source", "detail"), "VARCHAR"),
            **dict.fromkeys(("revision", "end", "recovered", "lost"), "BIGINT"),
        },
        (*_SIGNAL, "agent", "cause"),
    ),
    MachineEvent: Table(
        "event",
        {
            **_PLACE,
            **dict.fromkeys(("source", "kind", "id", "condition", "message", "detail"), "VARCHAR"),
            "severity": "BIGINT",
            **dict.fromkeys(("active", "acknowledged", "retain"), "BOOLEAN"),
        },
        tuple(_PLACE),
    ),
    ActionRow: Table(
        "action",
        {**_PLACE, **dict.fromkeys(("action", "id", "trigger", "target", "value", "outcome", "detail"), "VARCHAR")},
        (*_PLACE, "action"),
    ),
    AgentRow: Table("agent", {"agent": "VARCHAR", "figures": "VARCHAR"}, ("agent",)),
}

_COLUMNS = "\n".join(
    f'CREATE TABLE IF NOT EXISTS "{t.name}" ('
    + ", ".join(f'"{name}" {kind}' for name, kind in {**t.columns, "time": "BIGINT NOT NULL"}.items())
    + ");"
    for t in TABLES.values()
)

DDL = f"""
CREATE TABLE IF NOT EXISTS fieldlab (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS series (id UINTEGER NOT NULL, site VARCHAR, area VARCHAR, line VARCHAR, machine VARCHAR,
    signal VARCHAR);
CREATE TABLE IF NOT EXISTS reading (series UINTEGER NOT NULL, time BIGINT NOT NULL, value DOUBLE,
    status UINTEGER NOT NULL, text VARCHAR, "integer" BIGINT);
CREATE OR REPLACE VIEW telemetry AS SELECT s.site, s.area, s.line, s.machine, s.signal, r.time, r.value, r.status,
    r.text, r."integer" FROM reading r JOIN series s ON r.series = s.id;
{_COLUMNS}
"""  # noqa: S608  # our names
"""Readings refer to a series by number; the view `telemetry` shows them as that README does.

There is no primary key: on DuckDB it costs 3.7 times the time of an insert. The store keeps rows unique itself.
"""


def values(row: Row, time: int) -> dict[str, Any]:
    """A row as columns of its table; a `SignalInfo` gets `time`, ns."""
    fields: dict[str, Any] = {f: getattr(row, f) for f in row.__struct_fields__}
    fields.setdefault("time", time)
    key: SignalKey | None = fields.pop("key", None)
    place: Place | None = key.place if key else fields.pop("place", None)
    if key:
        fields["signal"] = key.name
    if place:
        fields |= {tag: getattr(place, tag) for tag in _PLACE}
    if isinstance(row, Verdict):
        fields["reasons"] = REASONS.join(row.reasons)
    for name, value in fields.items():
        if isinstance(value, dict):
            fields[name] = msgspec.json.encode(value).decode() if value else None
    return fields
