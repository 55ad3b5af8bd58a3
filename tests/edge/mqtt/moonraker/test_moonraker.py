"""Moonraker's messages, whole and split.

Source of the samples: github.com/Arksine/moonraker, docs/configuration.md ([mqtt]) and moonraker/components/mqtt.py
(`klipper/status` with `eventtime` and `status`; `klipper/state/<object>/<field>` with `eventtime` and `value`,
retained; `moonraker/status` with `server`, last will); klipper3d.org, Status reference (objects and fields).
"""

from typing import Any

import pytest

from edge.sources.mqtt.dialect import Ignored

UNCERTAIN = 0x40900000
START = {
    "webhooks": {"state": "ready", "state_message": "Printer is ready"},
    "print_stats": {
        "filename": "",
        "total_duration": 0.0,
        "print_duration": 0.0,
        "filament_used": 0.0,
        "state": "standby",
        "message": "",
        "info": {"total_layer": None, "current_layer": None},
    },
    "extruder": {"temperature": 21.4, "target": 0.0, "power": 0.0, "can_extrude": False, "pressure_advance": 0.04},
    "heater_bed": {"temperature": 20.9, "target": 0.0, "power": 0.0},
    "fan": {"speed": 0.0, "rpm": None},
    "display_status": {"progress": 0.0, "message": None},
    "toolhead": {"homed_axes": "", "print_time": 0.0},
    "temperature_sensor chamber": {"temperature": 24.0, "measured_min_temp": 20.0},
    "heater_fan hotend_fan": {"speed": 1.0, "rpm": 4300.0},
    "gcode_move": {"speed_factor": 1.0, "extrude_factor": 0.98},
    "motion_report": {"live_velocity": 60.0, "live_position": [10.0, 20.0, 0.4, 3.3]},
}


def whole(**status: Any) -> tuple[str, dict[str, Any]]:
    return "voron/klipper/status", {"eventtime": 2345.67, "status": status}


def part(name: str, field: str, value: Any) -> tuple[str, dict[str, Any]]:
    return f"voron/klipper/state/{name}/{field}", {"eventtime": 2345.67, "value": value}


def test_the_first_status_has_everything(ear: Any) -> None:
    m = ear("moonraker")
    found = m.values(*whole(**START))
    assert found == {
        "klipper": "ready",
        "file": "",
        "error": "",
        "state": 1.0,
        "state_text": "standby",
        "job": "",
        "total_elapsed": 0.0,
        "elapsed": 0.0,
        "filament_used": 0.0,
        "nozzle": 21.4,
        "nozzle_target": 0.0,
        "nozzle_power": 0.0,
        "pressure_advance": 0.04,
        "bed": 20.9,
        "bed_target": 0.0,
        "bed_power": 0.0,
        "fan": 0.0,
        "progress": 0.0,
        "chamber": 24.0,
        "fan_hotend_fan": 100.0,
        "fan_hotend_fan_rpm": 4300.0,
        "speed_factor": 100.0,
        "flow_factor": 98.0,
        "speed": 60.0,
        "x": 10.0,
        "y": 20.0,
        "z": 0.4,
    }
    assert m.dialect.counters["skipped"] == 4  # can_extrude, homed_axes, print_time, measured_min_temp
    assert (m.infos["speed"].unit, m.infos["fan_hotend_fan_rpm"].unit, m.infos["pressure_advance"].unit) == (
        "mm/s",
        "rpm",
        "s",
    )
    assert m.infos["speed"].key.place.machine == "voron"


def test_a_print_in_parts_that_changed(ear: Any) -> None:
    m = ear("moonraker")
    m.say(*whole(**START))
    said = m.say(*whole(print_stats={"filename": "parts/cap.gcode", "state": "printing"}))
    assert said == [
        ("voron/file", "parts/cap.gcode", m.arrival, 0),
        ("voron/state", 3.0, m.arrival, 0),
        ("voron/state_text", "printing", m.arrival, 0),
        ("voron/job", "cap.gcode", m.arrival, 0),
    ]
    changed = whole(print_stats={"info": {"total_layer": 120, "current_layer": 3}}, display_status={"progress": 0.0251})
    assert m.values(*changed) == {"total_layers": 120.0, "layer": 3.0, "progress": 2.51}
    assert m.values(*whole(print_stats={"state": "paused"})) == {"state": 4.0, "state_text": "paused"}
    done = m.values(*whole(print_stats={"state": "complete", "print_duration": 5012.5}))
    assert done == {"elapsed": 5012.5, "state": 5.0, "state_text": "complete", "job": ""}


def test_in_the_middle_of_a_print_its_end_is_told(ear: Any) -> None:
    m = ear("moonraker")
    assert m.values(*whole(print_stats={"state": "printing"})) == {"state": 3.0, "state_text": "printing"}
    assert m.values(*whole(print_stats={"state": "complete"}))["job"] == ""


def test_split_topics_and_a_name_with_a_space(ear: Any) -> None:
    m = ear("moonraker")
    assert m.values(*part("heater_bed", "temperature", 24.0)) == {"bed": 24.0}
    assert m.values(*part("temperature_sensor chamber", "temperature", 31.5)) == {"chamber": 31.5}
    assert m.values(*part("extruder1", "temperature", 200.5)) == {"nozzle[1]": 200.5}
    assert m.values(*part("print_stats", "info", {"total_layer": 9, "current_layer": 1})) == {
        "total_layers": 9.0,
        "layer": 1.0,
    }
    assert m.values(*part("print_stats", "filename", "cap.gcode")) == {"file": "cap.gcode"}
    assert m.values(*part("print_stats", "state", "printing")) == {
        "state": 3.0,
        "state_text": "printing",
        "job": "cap.gcode",
    }
    assert m.values(*part("filament_switch_sensor spool", "filament_detected", True)) == {"filament_spool": 1.0}
    assert m.values(*part("fan_generic _hidden", "speed", 0.5)) == {}
    assert m.values(*part("heater_bed", "target", None)) == {}


def test_what_is_retained_is_uncertain_and_said_again_when_it_is_sure(ear: Any) -> None:
    m = ear("moonraker")
    m.say(*part("print_stats", "filename", "cap.gcode"), retained=True)
    said = m.say(*part("print_stats", "state", "printing"), retained=True)
    assert [(name, status) for name, _, _, status in said][-1] == ("voron/job", UNCERTAIN)
    again = m.say(*part("print_stats", "state", "printing"))
    assert again[-1] == ("voron/job", "cap.gcode", m.arrival, 0)


def test_klipper_in_trouble(ear: Any) -> None:
    m = ear("moonraker")
    m.say(*whole(**START))
    m.say(*whole(print_stats={"filename": "cap.gcode", "state": "printing"}))
    fault = {"state": "shutdown", "state_message": "MCU 'mcu' shutdown: Timer too close"}
    assert m.values(*whole(webhooks=fault)) == {
        "klipper": "shutdown",
        "error": fault["state_message"],
        "state": 8.0,
        "state_text": "printing",
        "job": "",
    }
    failed = {"state": "error", "message": "Unknown command"}
    assert m.values(*whole(print_stats=failed))["error"] == fault["state_message"], "that is worse"
    assert m.values(*whole(webhooks=START["webhooks"])) == {
        "klipper": "ready",
        "error": "Unknown command",
        "state": 7.0,
        "state_text": "error",
    }


def test_moonraker_goes(ear: Any) -> None:
    m = ear("moonraker")
    m.say("voron/moonraker/status", {"server": "online"}, retained=True)
    m.say(*part("heater_bed", "temperature", 24.0))
    lost = m.say("voron/moonraker/status", {"server": "offline"})
    assert lost == [("voron/connection", 0.0, m.arrival, 0), ("voron/bed", None, m.arrival, 0x80310000)]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("klipper/status", {"eventtime": 1.0}),
        ("klipper/status", {"status": []}),
        ("klipper/state/a/b", {"eventtime": 1.0}),
        ("klipper/state/a/b", []),
        ("moonraker/status", {"server": 1}),
        ("moonraker/status", b"online"),
    ],
)
def test_what_cannot_be_read(ear: Any, topic: str, payload: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        ear("moonraker").say(f"voron/{topic}", payload)


def test_other_topics_are_not_for_us(ear: Any) -> None:
    for topic in ("voron/moonraker/api/response", "voron/klipper/alert", "voron"):
        with pytest.raises(Ignored):
            ear("moonraker").say(topic, {})
