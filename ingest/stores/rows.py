"""Turns rows of a store, as names and values, back into the model. Every store has the columns of ingest/README.md."""

import math
from collections.abc import Iterable, Mapping
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
from ingest.line_protocol import REASONS
from ingest.stores.base import Series

Row = Mapping[str, Any]


def place_of(row: Row) -> Place:
    """The machine that a row is about."""
    return Place(row["site"] or "", row["area"] or "", row["line"] or "", row["machine"] or "")


def key_of(row: Row) -> SignalKey:
    """The signal that a row is about."""
    return SignalKey(place_of(row), row["signal"] or "")


def series_of(row: Row) -> Series:
    """A row of the measurement `telemetry`."""
    value = math.nan if row["value"] is None else row["value"]
    return Series(
        np.array([row["time"]], np.int64),
        np.array([value], np.float64),
        np.array([row["status"] or 0], np.uint32),
        {} if row["text"] is None else {0: row["text"]},
    )


def signal_of(row: Row) -> SignalInfo:
    """A row of the measurement `signal`."""
    return SignalInfo(
        key=key_of(row),
        unit=row["unit"] or "",
        kind=row["kind"] or "gauge",
        lsl=row["lsl"],
        usl=row["usl"],
        target=row["target"],
        guarantee=row["guarantee"] or "end-to-end",
        states=_json(row["states"]),
    )


def chart_point_of(row: Row) -> ChartPoint:
    """A row of the measurement `chart`."""
    return ChartPoint(
        time=row["time"],
        place=place_of(row),
        signal=row["signal"] or "",
        chart=row["chart"] or "",
        statistic=_number(row["statistic"]),
        center=row["center"],
        ucl=row["ucl"],
        lcl=row["lcl"],
        limits_version=row["limits_version"] or 0,
    )


def finding_of(row: Row) -> Finding:
    """A row of the measurement `finding`."""
    return Finding(
        time=row["time"],
        place=place_of(row),
        signal=row["signal"] or "",
        chart=row["chart"] or "",
        rule=row["rule"] or "",
        id=row["id"],
        revision=row["revision"],
        state=row["state"],
        severity=row["severity"],
        statistic=_number(row["statistic"]),
        limit=_number(row["limit"]),
        limits_version=row["limits_version"] or 0,
        part=row["part"] or "",
        detail=row["detail"] or "",
    )


def verdict_of(row: Row) -> Verdict:
    """A row of the measurement `part`."""
    return Verdict(
        time=row["time"],
        place=place_of(row),
        id=row["id"],
        revision=row["revision"],
        verdict=row["verdict"],
        score=_number(row["score"]),
        reasons=tuple(row["reasons"].split(REASONS)) if row["reasons"] else (),
        start=row["start"] or 0,
        features=_json(row["features"]),
        genealogy=_json(row["genealogy"]),
        limits_versions=_json(row["limits_versions"]),
    )


def part_event_of(row: Row) -> PartEvent:
    """A row of the measurement `part_event`."""
    return PartEvent(
        time=row["time"],
        place=place_of(row),
        event=row["event"],
        id=row["id"],
        other=row["other"] or "",
        value=row["value"],
        text=row["text"] or "",
    )


def machine_state_of(row: Row) -> MachineState:
    """A row of the measurement `machine_state`."""
    return MachineState(time=row["time"], place=place_of(row), state=row["state"] or "")


def event_of(row: Row) -> MachineEvent:
    """A row of the measurement `event`."""
    return MachineEvent(
        time=row["time"],
        place=place_of(row),
        source=row["source"] or "",
        kind=row["kind"] or "",
        id=row["id"] or "",
        condition=row["condition"] or "",
        severity=row["severity"] or 0,
        message=row["message"] or "",
        active=row["active"],
        acknowledged=row["acknowledged"],
        retain=row["retain"],
        detail=_json(row["detail"]),
    )


def action_of(row: Row) -> ActionRow:
    """A row of the measurement `action`."""
    return ActionRow(
        time=row["time"],
        place=place_of(row),
        action=row["action"] or "",
        id=row["id"],
        trigger=row["trigger"] or "",
        target=row["target"] or "",
        value=row["value"] or "",
        outcome=row["outcome"],
        detail=row["detail"] or "",
    )


def retained(rows: Iterable[MachineEvent], limit: int) -> list[MachineEvent]:
    """The newest event of each condition's branch, of those that want attention, newest first, at most `limit`."""
    newest: dict[tuple[Place, str, str], MachineEvent] = {}
    for row in rows:
        key = (row.place, row.condition, row.detail.get("branch", ""))
        if key not in newest or row.time > newest[key].time:
            newest[key] = row
    found = [row for row in newest.values() if row.retain]
    return sorted(found, key=lambda e: (-e.time, e.place))[:limit]


def newest_findings(rows: Iterable[Finding], limit: int) -> list[Finding]:
    """The newest revision of each finding, newest first, at most `limit`."""
    newest: dict[str, Finding] = {}
    for row in rows:
        if row.id not in newest or row.revision > newest[row.id].revision:
            newest[row.id] = row
    return sorted(newest.values(), key=lambda f: (-f.time, f.id))[:limit]


def newest_verdicts(rows: Iterable[Verdict], limit: int) -> list[Verdict]:
    """The newest revision of each part's verdict, newest first, at most `limit`."""
    newest: dict[tuple[Place, str], Verdict] = {}
    for row in rows:
        key = (row.place, row.id)
        if key not in newest or row.revision > newest[key].revision:
            newest[key] = row
    return sorted(newest.values(), key=lambda v: (-v.time, v.id))[:limit]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _json(text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text) if text else {}
    return found
