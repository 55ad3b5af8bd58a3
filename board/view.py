"""Turns rows of the store and the agent's status into what the page shows. Times leave as milliseconds UTC."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fieldlab.model import Finding, MachineEvent, MachineState, Place, SignalInfo, SignalKey, Verdict
from fieldlab.model.status import BAD, UNCERTAIN

MAX_ROWS = 200  # findings, parts, conditions and events in one answer
MAX_SIGNALS = 500  # signals of one machine, and signals in the ledger, in one answer
MISSING = 20  # signals that a source cannot read, named in one answer
COUNTS = ("received", "committed", "stored", "bad", "duplicate", "rejected", "overflow", "dead", "lost")
WORST_FIRST = ("lost", "dead", "overflow", "rejected", "bad")


class Latest:
    """The newest reading of one signal."""

    __slots__ = ("status", "text", "time", "value")

    def __init__(self, time: int, value: float | None, status: int, text: str = "") -> None:
        self.time = time
        self.value = value
        self.status = status
        self.text = text


def milliseconds(ns: int) -> float:
    """Nanoseconds as the milliseconds that JavaScript counts in, microseconds kept."""
    return ns // 1000 / 1000


def is_open(finding: Finding) -> bool:
    """Whether somebody still has to look at it."""
    return finding.state != "cleared"


def machines(
    infos: Iterable[SignalInfo],
    states: Iterable[MachineState],
    findings: Iterable[Finding],
    latest: Mapping[SignalKey, Latest],
) -> list[dict[str, Any]]:
    """Every machine: its state, when it last spoke, its open findings and its newest values."""
    of_place: dict[Place, list[SignalInfo]] = {}
    for info in infos:
        of_place.setdefault(info.key.place, []).append(info)
    state_of = {state.place: state for state in states}
    open_of: Counter[Place] = Counter()
    alarms_of: Counter[Place] = Counter()
    for finding in findings:
        of_place.setdefault(finding.place, [])
        if is_open(finding):
            open_of[finding.place] += 1
            alarms_of[finding.place] += finding.severity == "alarm"
    rows = []
    for place in sorted({*of_place, *state_of}):
        here = sorted(of_place.get(place, ()), key=lambda info: info.key.name)
        spoken = [latest[info.key].time for info in here if info.key in latest]
        state = state_of.get(place)
        rows.append(
            {
                "path": place.path,
                "machine": place.machine,
                "state": state.state if state else "",
                "since": milliseconds(state.time) if state else None,
                "last_data": milliseconds(max(spoken)) if spoken else None,
                "open": open_of[place],
                "alarms": alarms_of[place],
                "signal_count": len(here),
                "signals": [_signal(info, latest.get(info.key)) for info in here[:MAX_SIGNALS]],
            }
        )
    return rows


def _signal(info: SignalInfo, latest: Latest | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": info.key.name, "unit": info.unit, "lsl": info.lsl, "usl": info.usl}
    if latest is not None:
        row |= {
            "time": milliseconds(latest.time),
            "value": latest.value,
            "text": latest.text or _state_text(info, latest.value),
            "quality": quality(latest.status),
        }
    return row


def _state_text(info: SignalInfo, value: float | None) -> str:
    return info.states.get(f"{value:g}", "") if info.states and value is not None else ""


def quality(status: int) -> str:
    """Good, Uncertain or Bad: the top two bits of an OPC UA StatusCode (Part 4, 7.39)."""
    if status & BAD:
        return "Bad"
    return "Uncertain" if status & UNCERTAIN else "Good"


def findings(rows: Sequence[Finding], units: Mapping[SignalKey, str], *, capped: bool) -> dict[str, Any]:
    """The newest findings, open ones first.

    Args:
        rows: newest first.
        units: signal → unit.
        capped: whether the store may hold more than `rows`.
    """
    first = sorted(rows, key=lambda f: not is_open(f))[:MAX_ROWS]
    return {
        "open": sum(map(is_open, rows)),
        "total": len(rows),
        "capped": capped,
        "rows": [finding_row(f, units) for f in first],
    }


def finding_row(f: Finding, units: Mapping[SignalKey, str]) -> dict[str, Any]:
    """One revision of a finding."""
    return {
        "id": f.id,
        "revision": f.revision,
        "time": milliseconds(f.time),
        "path": f.place.path,
        "machine": f.place.machine,
        "signal": f.signal,
        "chart": f.chart,
        "rule": f.rule,
        "state": f.state,
        "severity": f.severity,
        "statistic": f.statistic,
        "limit": f.limit,
        "unit": units.get(SignalKey(f.place, f.signal), ""),
        "limits_version": f.limits_version,
        "part": f.part,
        "detail": f.detail,
    }


def events(rows: Sequence[MachineEvent], conditions: Sequence[MachineEvent], *, capped: bool) -> dict[str, Any]:
    """What machines report themselves: the conditions that want attention, worst first, and the newest events.

    Args:
        rows: newest first.
        conditions: the newest event of each condition that wants attention.
        capped: whether the store may hold more than `rows`.
    """
    first = sorted(conditions, key=lambda e: (not e.active, bool(e.acknowledged), -e.severity, -e.time))[:MAX_ROWS]
    of_condition: dict[tuple[Place, str, str], list[MachineEvent]] = {}
    for row in rows:
        of_condition.setdefault(_condition(row), []).append(row)
    return {
        "active": sum(bool(e.active) for e in conditions),
        "unacknowledged": sum(e.acknowledged is False for e in conditions),
        "total": len(rows),
        "capped": capped,
        "conditions": [_event(e) | {"since": _since(e, of_condition.get(_condition(e), ()))} for e in first],
        "rows": [_event(e) for e in rows[:MAX_ROWS]],
    }


def _condition(event: MachineEvent) -> tuple[Place, str, str]:
    return event.place, event.condition, event.detail.get("branch", "")


def _since(now: MachineEvent, history: Sequence[MachineEvent]) -> float:
    """When a condition became what it is: its oldest event without another one in between that says otherwise."""
    since = now.time
    for event in history:
        if event.time <= now.time:
            if (event.active, event.retain) != (now.active, now.retain):
                break
            since = event.time
    return milliseconds(since)


def _event(event: MachineEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "time": milliseconds(event.time),
        "ns": str(event.time),
        "path": event.place.path,
        "machine": event.place.machine,
        "source": event.source,
        "kind": event.kind,
        "condition": event.condition,
        "name": event.detail.get("condition_name", ""),
        "branch": event.detail.get("branch", ""),
        "severity": event.severity,
        "message": event.message,
        "active": event.active,
        "acknowledged": event.acknowledged,
        "retain": event.retain,
        "comment": event.detail.get("comment", ""),
    }


def parts(rows: Sequence[Verdict], *, capped: bool) -> dict[str, Any]:
    """The newest parts with their verdicts.

    Args:
        rows: newest first.
        capped: whether the store may hold more than `rows`.
    """
    verdicts = Counter(v.verdict for v in rows)
    return {
        "total": len(rows),
        "capped": capped,
        "pass": verdicts["pass"],
        "suspect": verdicts["suspect"],
        "fail": verdicts["fail"],
        "rows": [part_row(v) for v in rows[:MAX_ROWS]],
    }


def part_row(v: Verdict) -> dict[str, Any]:
    """One revision of a verdict."""
    return {
        "id": v.id,
        "revision": v.revision,
        "time": milliseconds(v.time),
        "seconds": (v.time - v.start) / 1e9 if v.start else None,
        "path": v.place.path,
        "machine": v.place.machine,
        "verdict": v.verdict,
        "score": v.score,
        "reasons": v.reasons,
        "genealogy": v.genealogy,
    }


def ledger(
    status: Mapping[str, Any], infos: Iterable[SignalInfo], counts: Mapping[SignalKey, int]
) -> list[dict[str, Any]]:
    """One row a signal: the agent's counts, and under `kept` what the store itself answers; worst first."""
    rows: dict[str, dict[str, Any]] = {}
    for given in status.get("ledger_signals") or ():
        name = str(given.get("signal", "?"))
        path = str(given.get("path", name))
        figures = {c: given.get(c) for c in COUNTS}
        if figures["lost"] is None:  # what the ledger knows to be lost before the journal
            figures["lost"] = given.get("overflow")
        said = {"guarantee": given.get("guarantee", ""), "loss": given.get("loss", "")}
        rows[path] = {"path": path, "signal": name, **said, **figures, "kept": 0}
    kinds = {info.key: info.guarantee for info in infos}
    for key in {*kinds, *counts}:
        path = key.short if key.short in rows else key.path
        blank = {"path": path, "signal": key.short, "guarantee": "", "loss": "", **dict.fromkeys(COUNTS), "kept": 0}
        row = rows.setdefault(path, blank)
        row["guarantee"] = row["guarantee"] or kinds.get(key, "")
        row["kept"] += counts.get(key, 0)
    return sorted(rows.values(), key=lambda r: ([-(r[c] or 0) for c in WORST_FIRST], r["path"]))


def trust(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Totals, the same by guarantee, every cursor, the sources and the journal."""
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        blank = {"guarantee": row["guarantee"], "loss": "", "signals": 0, "kept": 0}
        group = groups.setdefault(row["guarantee"], blank)
        group["signals"] += 1
        group["kept"] += row["kept"]
        for count in COUNTS:
            if row[count] is not None:
                group[count] = group.get(count, 0) + row[count]
    for losses in status.get("ledger_losses") or ():
        if (known := groups.get(losses.get("guarantee"))) is not None:
            known["loss"] = losses.get("loss", "")
    totals = status.get("ledger") or {}
    return {
        "agent": status.get("agent", ""),
        "totals": {c: totals.get(c) for c in COUNTS} | {"kept": sum(r["kept"] for r in rows)},
        "guarantees": [groups[name] for name in sorted(groups)],
        "signal_count": len(rows),
        "stores": list(status.get("ledger_stores") or ())[:MAX_ROWS],
        "consumers": list(status.get("consumers") or ())[:MAX_ROWS],
        "sources": [
            {
                **{k: s.get(k) for k in ("name", "kind", "url", "connected", "error", "signals")},
                "missing": _names(s.get("missing")),
                "last_data": milliseconds(s["last_data"]) if s.get("last_data") else None,
            }
            for s in list(status.get("sources") or ())[:MAX_ROWS]
        ],
        "journal": status.get("journal") or {},
    }


def gaps(status: Mapping[str, Any]) -> dict[str, Any]:
    """The newest gaps, newest first, and how many there have been by cause and state."""
    known = status.get("gaps") or {}
    by_cause = known.get("by_cause") or {}
    names = ("id", "signal", "path", "cause", "state", "recovered", "lost", "source", "detail")
    rows = [
        {
            **{name: gap.get(name) for name in names},
            "start": milliseconds(gap.get("start") or 0),
            "end": milliseconds(gap["end"]) if gap.get("end") else None,
        }
        for gap in list(known.get("newest") or ())[:MAX_ROWS]
    ]
    return {
        "rows": rows,
        "total": sum(sum(states.values()) for states in by_cause.values()),
        "not_closed": sum(n for states in by_cause.values() for state, n in states.items() if state != "closed"),
        "by_cause": [{"cause": cause, **states} for cause, states in sorted(by_cause.items())],
    }


def _names(missing: Any) -> list[str]:
    """The missing signals, each with its reason where the source gives one."""
    if isinstance(missing, Mapping):
        return [f"{name}: {reason}" for name, reason in list(missing.items())[:MISSING]]
    if isinstance(missing, list | tuple):
        return [str(name) for name in missing[:MISSING]]
    return [f"{missing} signals"] if missing else []
