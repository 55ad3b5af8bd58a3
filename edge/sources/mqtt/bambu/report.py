"""The fields of a Bambu report: which signals they are, and how partial reports make a whole one.

Source: github.com/Doridian/OpenBambuAPI (mqtt.md), github.com/greghesp/ha-bambulab (pybambu).
"""

from collections.abc import Callable
from typing import Any, Final

from edge.sources.mqtt.device import Quantity
from edge.sources.mqtt.printers import (
    BED,
    BED_TARGET,
    CHAMBER,
    CHAMBER_TARGET,
    ERROR_CODE,
    FAN,
    LAYER,
    LAYERS,
    PROGRESS,
    REMAINING,
    SPEED_FACTOR,
    of_tool,
)
from edge.sources.mqtt.scalars import number, scaled

_DEPTH = 12  # of a report; deeper is no report
_WIDTH = 500  # keys of one object that are remembered, and things in one array
_REMEMBERED: Final = ("gcode_state", "subtask_name", "gcode_file", "print_error", "hms", "ams", "vt_tray")


def _fan(raw: Any) -> float | None:
    """Fan levels are 0 to 15, written as text."""
    return scaled(raw, 100 / 15)


def _minutes(raw: Any) -> float | None:
    return scaled(raw, 60.0)


def _signal_strength(raw: Any) -> float | int | None:
    return number(raw.removesuffix("dBm")) if isinstance(raw, str) else None


FIELDS: Final[dict[str, tuple[Quantity, Callable[[Any], float | int | None]]]] = {
    "nozzle_temper": (of_tool(0, "nozzle"), number),
    "nozzle_target_temper": (of_tool(0, "nozzle_target"), number),
    "bed_temper": (BED, number),
    "bed_target_temper": (BED_TARGET, number),
    "chamber_temper": (CHAMBER, number),
    "chamber_target_temper": (CHAMBER_TARGET, number),
    "mc_percent": (PROGRESS, number),
    "mc_remaining_time": (REMAINING, _minutes),
    "layer_num": (LAYER, number),
    "total_layer_num": (LAYERS, number),
    "cooling_fan_speed": (FAN, _fan),
    "big_fan1_speed": (Quantity("fan_auxiliary", "%"), _fan),
    "big_fan2_speed": (Quantity("fan_chamber", "%"), _fan),
    "heatbreak_fan_speed": (Quantity("fan_heatbreak", "%"), _fan),
    "spd_mag": (SPEED_FACTOR, number),
    "spd_lvl": (
        Quantity("speed_level", "", "state", {"1": "silent", "2": "standard", "3": "sport", "4": "ludicrous"}),
        number,
    ),
    "print_error": (ERROR_CODE, number),
    "stg_cur": (Quantity("stage"), number),
    "wifi_signal": (Quantity("wifi_signal", "dBm"), _signal_strength),
}
TRAY = Quantity("tray")  # 254: the spool outside, 255: none, else 4 * unit + place
STATES: Final = {  # gcode_state → state
    "IDLE": "idle",
    "INIT": "idle",
    "SLICING": "preparing",
    "PREPARE": "preparing",
    "RUNNING": "printing",
    "PAUSE": "paused",
    "FINISH": "finished",
    "FAILED": "failed",
    "OFFLINE": "offline",
}


def remembered(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report later ones need."""
    return {key: report[key] for key in _REMEMBERED if key in report}


def merge(whole: dict[str, Any], part: dict[str, Any], depth: int = 0) -> None:
    """Enter what a partial report says into the whole: objects key by key, arrays of things with an id thing by thing.

    Raises:
        ValueError: if it is nested too deeply.
    """
    if depth > _DEPTH:
        raise ValueError("the report is nested too deeply")
    for key, new in part.items():
        old = whole.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            merge(old, new, depth + 1)
        elif _by_id(new) and _by_id(old):
            things: list[dict[str, Any]] = old or []
            places = {each["id"]: each for each in things}
            for each in new:
                if each["id"] in places:
                    merge(places[each["id"]], each, depth + 1)
                elif len(things) < _WIDTH:
                    things.append(each)
        elif key in whole or len(whole) < _WIDTH:
            whole[key] = new


def _by_id(raw: Any) -> bool:
    """Whether it is an array of things that have ids, such as AMS units and trays."""
    return (
        isinstance(raw, list)
        and len(raw) > 0
        and all(isinstance(each, dict) and isinstance(each.get("id"), str | int) for each in raw)
    )


def entries(raw: Any) -> list[dict[str, Any]]:
    """The objects in an array; none, if it is no array."""
    return [each for each in raw if isinstance(each, dict)] if isinstance(raw, list) else []


def faults(hms: Any) -> str:
    """The codes of the health management system, as the maker's wiki names them; empty if there are none."""
    codes = []
    for each in entries(hms):
        attr, code = each.get("attr"), each.get("code")
        if isinstance(attr, int) and isinstance(code, int) and min(attr, code) >= 0 and max(attr, code) < 2**32:
            digits = f"{attr:08X}{code:08X}"
            codes.append("HMS_" + "_".join(digits[i : i + 4] for i in range(0, 16, 4)))
    return ", ".join(codes)


def print_fault(code: int) -> str:
    """`print_error` as the maker's wiki writes it; empty for none."""
    digits = f"{code & 0xFFFFFFFF:08X}"
    return f"{digits[:4]}_{digits[4:]}" if code else ""
