"""Bambu's reports: partial ones merged, the whole asked for, and never a subscription to the requests.

Source of the samples: github.com/Doridian/OpenBambuAPI, mqtt.md (pushing.pushall, print.push_status, info.get_version,
the five minutes between two pushall); github.com/Rdiger36/BambuLab-AMS-Spoolman-Filamentstatus, README.md (a P1S's
whole report with "msg": 0, as logged); Aetrius/Bambulabs-Exporter#22 (partial reports); github.com/greghesp/ha-bambulab
(minutes, fan levels, states).
"""

import json
from typing import Any

import pytest

from edge.sources.mqtt.bambu.report import faults, merge
from edge.sources.mqtt.dialect import Ignored
from fieldlab.errors import ConfigError

SERIAL = "01P00A000000000"
TOPIC = f"device/{SERIAL}/report"
TRAYS = [
    {"id": "0", "remain": 83, "tray_type": "PLA", "tray_color": "5E43B7FF", "tray_sub_brands": "PLA Basic"},
    {"id": "1", "remain": 100, "tray_type": "PETG", "tray_color": "0A2989FF"},
    {"id": "2"},
]
WHOLE = {
    "ipcam": {"ipcam_dev": "1", "ipcam_record": "disable"},
    "upload": {"status": "idle", "progress": 0, "message": ""},
    "nozzle_temper": 15.0625,
    "nozzle_target_temper": 0,
    "bed_temper": 12,
    "bed_target_temper": 0,
    "chamber_temper": 5,
    "mc_print_stage": "1",
    "heatbreak_fan_speed": "0",
    "cooling_fan_speed": "15",
    "big_fan1_speed": "0",
    "big_fan2_speed": "6",
    "mc_percent": 100,
    "mc_remaining_time": 2,
    "spd_mag": 100,
    "spd_lvl": 2,
    "print_error": 0,
    "wifi_signal": "-68dBm",
    "gcode_state": "FINISH",
    "task_id": "0",
    "subtask_name": "cap",
    "gcode_file": "/data/Metadata/plate_1.gcode",
    "stg_cur": 255,
    "layer_num": 260,
    "total_layer_num": 260,
    "hms": [],
    "ams": {
        "ams": [{"id": "0", "humidity": "5", "temp": "22.7", "tray": TRAYS}],
        "ams_exist_bits": "1",
        "tray_now": "255",
        "version": 103,
    },
    "vt_tray": {"id": "254", "tray_type": "TPU"},
    "command": "push_status",
    "msg": 0,
    "sequence_id": "40943",
}


def part(sequence: int, **fields: Any) -> dict[str, Any]:
    return {"print": {**fields, "command": "push_status", "msg": 1, "sequence_id": str(sequence)}}


@pytest.fixture
def printer(ear: Any) -> Any:
    return ear("bambu", topic=f"device/{SERIAL}", machine="x1c-1")


def test_the_whole(printer: Any) -> None:
    assert printer.values(TOPIC, {"print": WHOLE}) == {
        "nozzle": 15.0625,
        "nozzle_target": 0.0,
        "bed": 12.0,
        "bed_target": 0.0,
        "chamber": 5.0,
        "progress": 100.0,
        "remaining": 120.0,
        "layer": 260.0,
        "total_layers": 260.0,
        "fan": 100.0,
        "fan_auxiliary": 0.0,
        "fan_chamber": 40.0,
        "fan_heatbreak": 0.0,
        "speed_factor": 100.0,
        "speed_level": 2.0,
        "error_code": 0.0,
        "stage": 255.0,
        "wifi_signal": -68.0,
        "state_text": "FINISH",
        "state": 5.0,
        "file": "/data/Metadata/plate_1.gcode",
        "task": "0",
        "job": "",
        "error": "",
        "tray": 255.0,
        "ams": 22.7,
        "ams_humidity": 5.0,
        "filament": "",
    }
    assert printer.infos["speed_level"].states["4"] == "ludicrous"
    assert printer.infos["nozzle"].key.path == "drachten/shavers/3/x1c-1/nozzle"
    assert {info.guarantee for info in printer.infos.values()} == {"from-receipt"}, "it is its own broker"


def test_partial_reports_say_what_they_hold_and_no_more(printer: Any) -> None:
    printer.say(TOPIC, {"print": WHOLE})
    assert printer.say(TOPIC, part(40944, nozzle_temper=16.0)) == [("x1c-1/nozzle", 16.0, printer.arrival, 0)]
    assert printer.values(TOPIC, part(40945, gcode_state="PREPARE")) == {
        "state_text": "PREPARE",
        "state": 2.0,
        "job": "cap",
    }
    assert printer.values(TOPIC, part(40946, subtask_name="lid")) == {"job": "lid"}
    assert printer.values(TOPIC, part(40947, gcode_state="RUNNING"))["job"] == "lid"
    assert printer.values(TOPIC, part(40948, ams={"tray_now": "1"})) == {"tray": 1.0, "filament": "PETG"}
    changed = {"ams": [{"id": "0", "tray": [{"id": "1", "tray_type": "ABS"}]}]}
    assert printer.values(TOPIC, part(40949, ams=changed)) == {"filament": "ABS"}
    assert printer.values(TOPIC, part(40950, ams={"tray_now": "254"})) == {"tray": 254.0, "filament": "TPU"}
    assert printer.values(TOPIC, part(40951, gcode_state="FAILED"))["job"] == ""
    assert printer.say(TOPIC, part(40952, lights_report=[{"node": "chamber_light", "mode": "on"}])) == []
    assert (printer.dialect.counters["full"], printer.dialect.counters["partial"]) == (1, 9)


def test_faults(printer: Any) -> None:
    printer.say(TOPIC, {"print": WHOLE})
    hms = [{"attr": 0x0300_0100, "code": 0x0001_0007}, {"attr": 0x0C00_0300, "code": 0x0003_0006}]
    found = printer.values(TOPIC, part(40944, hms=hms))
    assert found == {"error": "HMS_0300_0100_0001_0007, HMS_0C00_0300_0003_0006"}
    found = printer.values(TOPIC, part(40945, print_error=0x0300_400C))
    assert found == {
        "error_code": float(0x0300_400C),
        "error": "0300_400C, HMS_0300_0100_0001_0007, HMS_0C00_0300_0003_0006",
    }
    assert printer.values(TOPIC, part(40946, hms=[], print_error=0)) == {"error_code": 0.0, "error": ""}
    assert faults([{"attr": -1, "code": 3}, 7, {"attr": "a"}]) == ""


def test_an_older_report_is_not_taken_for_news(printer: Any) -> None:
    printer.say(TOPIC, {"print": WHOLE})
    printer.say(TOPIC, part(40950, gcode_state="RUNNING"))
    with pytest.raises(Ignored) as caught:
        printer.say(TOPIC, part(40949, gcode_state="PREPARE"))
    assert caught.value.reason == "stale"
    assert printer.values(TOPIC, part(40950, mc_percent=3)) == {"progress": 3.0}
    assert printer.values(TOPIC, part(2, mc_percent=4)) == {"progress": 4.0}, "the printer started anew"
    printer.say(TOPIC, part(60, mc_percent=5))
    for i in range(10):
        with pytest.raises(Ignored):
            printer.say(TOPIC, part(3 + i, mc_percent=6))
    assert printer.values(TOPIC, part(13, mc_percent=7)) == {"progress": 7.0}, "so many are no accident"
    printer.dialect.lost()
    assert printer.values(TOPIC, part(1, mc_percent=8)) == {"progress": 8.0}, "after a new connection"


def test_the_whole_is_asked_for_after_each_connect_but_not_too_often(printer: Any) -> None:
    now = [1000.0]
    dialect = printer.dialect
    dialect.now = lambda: now[0]
    (asked,) = dialect.greetings(present=False)
    assert (asked.topic, asked.retain) == (f"device/{SERIAL}/request", False)
    assert json.loads(asked.payload)["pushing"]["command"] == "pushall"
    assert dialect.drain() == []
    printer.say(TOPIC, part(1, nozzle_temper=20.0))  # no whole yet: asked again when it is time
    dialect.lost()
    now[0] += 10
    assert dialect.greetings(present=False) == []
    now[0] += 289
    assert dialect.drain() == []
    now[0] += 2
    assert [message.topic for message in dialect.drain()] == [f"device/{SERIAL}/request"]
    printer.say(TOPIC, {"print": WHOLE})
    now[0] += 1000
    assert dialect.drain() == []


def test_several_printers_behind_one_broker_are_asked_when_they_are_known(ear: Any) -> None:
    both = ear("bambu")
    assert both.dialect.greetings(present=False) == []
    for serial in ("A1", "B2"):
        assert both.say(f"device/{serial}/report", part(1, bed_temper=20))[0][0] == f"{serial}/bed"
    assert [message.topic for message in both.dialect.drain()] == ["device/A1/request", "device/B2/request"]


def test_what_is_not_for_us(printer: Any) -> None:
    version = {"info": {"command": "get_version", "module": [{"name": "ota", "sw_ver": "01.01.01.00"}]}}
    log = {"mc_print": {"command": "push_info", "param": "[LINK] GcodeLine", "sequence_id": "107"}}
    answer = {"print": {"command": "pause", "sequence_id": "0", "result": "success"}}
    for payload in (version, log, answer):
        with pytest.raises(Ignored):
            printer.say(TOPIC, payload)
    for wrong in (b"{", b"[]", {"print": 3}):
        with pytest.raises(ValueError, match=r"."):
            printer.say(TOPIC, wrong)


@pytest.mark.parametrize("topics", [("device/+/request",), ("device/#",), (f"device/{SERIAL}/report", "#")])
def test_nobody_subscribes_to_the_requests(ear: Any, topics: Any) -> None:
    with pytest.raises(ConfigError, match="requests") as caught:
        ear("bambu", topics=topics)
    assert caught.value.key == f"topics[{len(topics) - 1}]"


def test_merging() -> None:
    whole: dict[str, Any] = {"a": {"b": 1, "c": [1, 2]}, "d": [{"id": "0", "x": 1}]}
    merge(whole, {"a": {"c": [3]}, "d": [{"id": "0", "y": 2}, {"id": "1"}], "e": None})
    assert whole == {"a": {"b": 1, "c": [3]}, "d": [{"id": "0", "x": 1, "y": 2}, {"id": "1"}], "e": None}
