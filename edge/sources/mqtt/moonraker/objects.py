"""Klipper's status objects: which of their fields are which signals.

Source: klipper3d.org, Status reference. Fields that depend on one another (state, file and job) are the dialect's.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from edge.sources.mqtt.device import Quantity
from edge.sources.mqtt.printers import (
    BED,
    BED_TARGET,
    CHAMBER,
    CHAMBER_TARGET,
    ELAPSED,
    FAN,
    FAN_RPM,
    FLOW_FACTOR,
    LAYER,
    LAYERS,
    PROGRESS,
    SPEED,
    SPEED_FACTOR,
    of_tool,
)
from edge.sources.mqtt.scalars import number, scaled
from fieldlab.model.place import check_name

Convert = Callable[[Any], float | int | None]
Known = tuple[Quantity, Convert]

_EXTRUDER = re.compile(r"extruder(\d{0,2})", re.ASCII)


def _percent(raw: Any) -> float | None:
    """0 to 1 as percent."""
    return scaled(raw, 100.0)


def axis(i: int) -> Convert:
    """One element of a position."""

    def of(raw: Any) -> float | int | None:
        return number(raw[i]) if isinstance(raw, list) and len(raw) > i else None

    return of


_FIXED: Final[dict[tuple[str, str], Known]] = {
    ("heater_bed", "temperature"): (BED, number),
    ("heater_bed", "target"): (BED_TARGET, number),
    ("heater_bed", "power"): (Quantity("bed_power", "%"), _percent),
    ("fan", "speed"): (FAN, _percent),
    ("fan", "rpm"): (FAN_RPM, number),
    ("display_status", "progress"): (PROGRESS, _percent),
    ("virtual_sdcard", "progress"): (Quantity("file_progress", "%"), _percent),
    ("print_stats", "print_duration"): (ELAPSED, number),
    ("print_stats", "total_duration"): (Quantity("total_elapsed", "s", "counter"), number),
    ("print_stats", "filament_used"): (Quantity("filament_used", "mm", "counter"), number),
    ("print_stats", "info.current_layer"): (LAYER, number),
    ("print_stats", "info.total_layer"): (LAYERS, number),
    ("gcode_move", "speed_factor"): (SPEED_FACTOR, _percent),
    ("gcode_move", "extrude_factor"): (FLOW_FACTOR, _percent),
    ("motion_report", "live_velocity"): (SPEED, number),
    ("motion_report", "live_extruder_velocity"): (Quantity("extruder_speed", "mm/s"), number),
}
POSITION: Final = tuple((Quantity(name, "mm"), axis(i)) for i, name in enumerate(("x", "y", "z")))
_OF_FAN: Final = ("fan_generic", "heater_fan", "controller_fan", "temperature_fan")
_OF_HEATER: Final = ("heater_generic", "temperature_sensor", "temperature_fan")


@lru_cache(maxsize=10_000)
def known(name: str, field: str) -> Known | None:
    """The signal of a field of an object, and how to read it; None if it has none."""
    fixed = _FIXED.get((name, field))
    if fixed is not None:
        return fixed
    extruder = _EXTRUDER.fullmatch(name)
    if extruder:
        tool = int(extruder[1] or 0)
        return {
            "temperature": (of_tool(tool, "nozzle"), number),
            "target": (of_tool(tool, "nozzle_target"), number),
            "power": (of_tool(tool, "nozzle_power", "%"), _percent),
            "pressure_advance": (of_tool(tool, "pressure_advance", "s"), number),
        }.get(field)
    kind, _, own = name.partition(" ")
    if not own or own.startswith("_"):  # Klipper's own way to hide an object
        return None
    try:
        check_name(f"{own}_target", "signal")
    except ValueError:
        return None
    return _named(kind, own, field)


def _named(kind: str, own: str, field: str) -> Known | None:
    """The signal of an object that has a name of its own in the printer's configuration."""
    if kind in _OF_HEATER and field == "temperature":
        return (CHAMBER if own == "chamber" else Quantity(own, "°C")), number
    if kind in _OF_HEATER and field == "target":
        return (CHAMBER_TARGET if own == "chamber" else Quantity(f"{own}_target", "°C")), number
    if kind in _OF_FAN and field == "speed":
        return Quantity(f"fan_{own}", "%"), _percent
    if kind in _OF_FAN and field == "rpm":
        return Quantity(f"fan_{own}_rpm", "rpm"), number
    if kind in ("filament_switch_sensor", "filament_motion_sensor") and field == "filament_detected":
        return Quantity(f"filament_{own}", "", "state", {"0": "absent", "1": "present"}), number
    return None
