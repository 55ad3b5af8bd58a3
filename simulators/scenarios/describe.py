"""Says what a scenario has, in plain words for programs: enough to write an agent's configuration from."""

from collections.abc import Sequence
from typing import Any

from simulators.machines import MACHINES, Signal
from simulators.protocols.dialects import dialect_of
from simulators.scenarios.load import Scenario, machines

NAMESPACE = "urn:fieldlab:sim"  # of the OPC UA nodes
TOPIC_ROOT = "fieldlab"
_PARTS = {"vda5050": "order", "octoprint": "job", "moonraker": "job", "bambu": "job"}  # what cuts parts there


def node(machine: str, signal: str) -> str:
    """The OPC UA node id of a signal, without its namespace: `s=cnc-07.spindle_load`."""
    return f"s={machine}.{signal}"


def topic(place: str, signal: str) -> str:
    """The MQTT topic of a signal: `fieldlab/<site>/<area>/<line>/<machine>/<signal>`."""
    return f"{TOPIC_ROOT}/{place}/{signal}"


def _told(dialect: str, place: str, signals: Sequence[Signal]) -> frozenset[str] | None:
    """The signals that a dialect can tell; None for all."""
    spoken = None if dialect == "opcua" else dialect_of(dialect, place, signals)
    return spoken.told if spoken else None


def describe(scenario: Scenario) -> dict[str, Any]:
    """A scenario as plain dicts, lists, text and numbers.

    Returns:
        name, title, about, site, area, line, seed, duration (s), `habits` (what protocols do wrong), `machines`: each
        with name, kind, about, place, protocol (`opcua` or `mqtt`), dialect (of MQTT, or `opcua`), upstream (the
        machine before it), sample_period and cycle_time (s), parts, part_id and part_key (the signal that cuts
        parts, and whether it is an `id` or a `job`), `signals`
        (name, unit, kind, low, high, lsl, usl, target, per_part, about, and a `node` over OPC UA, a `topic` in the
        dialect `json`) and `faults` (kind, signals, start_part, end_part, severity, about when in parts).
    """
    listed = []
    for plan, machine in zip(scenario.machine, machines(scenario, 0), strict=True):
        kind = MACHINES[plan.kind]
        place = scenario.place(plan.name)
        signals = []
        dialect = scenario.dialect(plan)
        told = _told(dialect, place, machine.signals)
        for s in machine.signals:
            if told is not None and s.name not in told:
                continue
            row: dict[str, Any] = {key: getattr(s, key) for key in s.__struct_fields__}
            if kind.PROTOCOL == "opcua":
                row["node"] = f"nsu={NAMESPACE};{node(plan.name, s.name)}"
            elif dialect == "json":
                row["topic"] = topic(place, s.name)
            signals.append(row)
        part = (
            "order" if dialect == "vda5050" else "job" if dialect in ("octoprint", "moonraker", "bambu") else "part_id"
        )
        listed.append(
            {
                "name": plan.name,
                "kind": plan.kind,
                "about": kind.ABOUT,
                "place": place,
                "protocol": kind.PROTOCOL,
                "dialect": dialect,
                "upstream": plan.upstream,
                "sample_period": scenario.period(plan),
                "cycle_time": scenario.cycle(plan),
                "parts": machine.parts,
                "part_id": part,
                "part_key": "job" if part == "job" else "id",
                "signals": signals,
                "faults": [
                    {
                        "kind": f.kind,
                        "signals": [s for s in kind.FAULTS[f.kind] if told is None or s in told],
                        "start_part": f.start_part,
                        "end_part": f.end_part,
                        "severity": f.severity,
                    }
                    for f in machine.faults
                ],
            }
        )
    described = {
        key: getattr(scenario, key) for key in ("name", "title", "about", "site", "area", "line", "seed", "duration")
    }
    habits = [{k: getattr(h, k) for k in h.__struct_fields__} for h in scenario.habits()]
    return {**described, "habits": habits, "machines": listed}
