"""OctoPrint's messages as its MQTT plugin writes them.

Source of the samples: github.com/OctoPrint/OctoPrint-MQTT, README.md and octoprint_mqtt/__init__.py (topics, payload
keys, `_timestamp`, last will); docs.octoprint.org, Events (payloads of the events).
"""

from typing import Any

import pytest

from edge.sources.mqtt.dialect import Ignored

T = 1_795_000_000
NS = T * 1_000_000_000
FILE = {"name": "case_bp_3.6.v1.0.gco", "path": "case_bp_3.6.v1.0.gco", "origin": "local", "size": 1468987}


def event(name: str, at: int = 0, /, **payload: Any) -> tuple[str, dict[str, Any]]:
    return f"octoPrint/event/{name}", {**payload, "_event": name, "_timestamp": T + at}


def state(state_id: str, text: str, at: int = 0) -> tuple[str, dict[str, Any]]:
    return event("PrinterStateChanged", at, state_id=state_id, state_string=text)


def test_a_print_from_start_to_end(ear: Any) -> None:
    o = ear("octoprint", machine="prusa-1")
    assert o.say("octoPrint/mqtt", b"connected") == [("prusa-1/connection", 1.0, o.arrival, 0)]
    assert o.values(*state("STARTING", "Starting")) == {"state_text": "Starting", "state": 2.0}
    started = o.say(*event("PrintStarted", 1, **FILE))
    assert started == [
        ("prusa-1/file", FILE["path"], NS + 10**9, 0),
        ("prusa-1/error", "", NS + 10**9, 0),
        ("prusa-1/state", 3.0, NS + 10**9, 0),
        ("prusa-1/job", FILE["path"], NS + 10**9, 0),
    ]
    assert o.values(*state("PRINTING", "Printing", 1)) == {"state_text": "Printing", "state": 3.0}
    progress = {"location": "local", "path": FILE["path"], "progress": 42, "_timestamp": T + 2}
    assert o.values("octoPrint/progress/printing", progress) == {"progress": 42.0, "file": FILE["path"]}
    temperature = {"actual": 210.3, "target": 210.0, "_timestamp": T + 3}
    assert o.say("octoPrint/temperature/tool0", temperature) == [
        ("prusa-1/nozzle", 210.3, NS + 3 * 10**9, 0),
        ("prusa-1/nozzle_target", 210.0, NS + 3 * 10**9, 0),
    ]
    assert o.values("octoPrint/temperature/tool1", temperature) == {"nozzle[1]": 210.3, "nozzle_target[1]": 210.0}
    assert o.values("octoPrint/temperature/bed", {"actual": 60, "target": None, "_timestamp": T}) == {"bed": 60.0}
    assert o.values(*event("ZChange", 4, old=0.2, new=0.4)) == {"z": 0.4}
    layers = {"currentLayer": "2", "totalLayer": "120"}
    assert o.values(*event("DisplayLayerProgress_layerChanged", 4, **layers)) == {"layer": 2.0, "total_layers": 120.0}
    assert o.values(*event("PrintPaused", 5, **FILE)) == {"state": 4.0}
    assert o.values(*event("PrintResumed", 6, **FILE)) == {"state": 3.0}
    assert o.values(*event("PrintDone", 7, **FILE, time=5252.17)) == {"elapsed": 5252.17, "state": 5.0, "job": ""}
    assert o.values(*state("OPERATIONAL", "Operational", 7)) == {"state_text": "Operational", "state": 1.0}
    info = o.infos["state"]
    assert (info.kind, info.states["3"], info.guarantee) == ("state", "printing", "end-to-end")
    assert (o.infos["nozzle"].unit, o.infos["progress"].unit, o.infos["job"].kind) == ("°C", "%", "text")


def test_how_a_print_may_end(ear: Any) -> None:
    o = ear("octoprint", machine="p")
    o.values(*event("PrintStarted", **FILE))
    assert o.values(*event("PrintCancelled", 1, **FILE, time=60)) == {"elapsed": 60.0, "state": 6.0, "job": ""}
    assert o.values(*event("PrintFailed", 1, **FILE, time=60, reason="cancelled"))["state"] == 6.0
    o.values(*event("PrintStarted", 2, **FILE))
    assert o.values(*event("PrintFailed", 3, **FILE, time=9, reason="error")) == {
        "elapsed": 9.0,
        "state": 7.0,
        "job": "",
    }
    o.values(*event("PrintStarted", 4, **FILE))
    readings = o.say(*event("PrintStarted", 5, **FILE))  # its end was not heard
    assert [value for name, value, _, _ in readings if name == "p/job"] == ["", FILE["path"]]
    assert o.values(*event("Error", 6, error="Heating failed", reason="firmware")) == {"error": "Heating failed"}


def test_in_the_middle_of_a_print_the_job_is_found_by_its_progress(ear: Any) -> None:
    o = ear("octoprint", machine="p")
    selected = {"location": "local", "path": "a/b.gcode", "progress": 0, "_timestamp": T}
    assert o.values("octoPrint/progress/printing", selected) == {"progress": 0.0, "file": "a/b.gcode"}
    moving = {**selected, "progress": 17, "_timestamp": T + 1}
    assert o.values("octoPrint/progress/printing", moving) == {
        "progress": 17.0,
        "file": "a/b.gcode",
        "state": 3.0,
        "job": "b.gcode",
    }


def test_printer_data_beside_the_progress(ear: Any) -> None:
    data = {
        "currentZ": 3.2,
        "progress": {"completion": 17.4, "filepos": 1, "printTime": 600, "printTimeLeft": 1200},
        "state": {"text": "Printing", "flags": {}},
    }
    progress = {"location": "local", "path": "b.gcode", "progress": 17, "_timestamp": T, "printer_data": data}
    found = ear("octoprint", machine="p").values("octoPrint/progress/printing", progress)
    assert (found["z"], found["elapsed"], found["remaining"]) == (3.2, 600.0, 1200.0)


def test_when_octoprint_or_the_printer_goes_each_signal_says_so_once(ear: Any) -> None:
    o = ear("octoprint", machine="p")
    o.say("octoPrint/mqtt", b"connected")
    o.say(*event("PrintStarted", **FILE))
    o.say("octoPrint/temperature/tool0", {"actual": 210.3, "target": 210.0, "_timestamp": T})
    gone = o.say(*event("Disconnected", 1))
    assert [(name, value, status) for name, value, _, status in gone] == [
        ("p/state", 0.0, 0),
        ("p/job", "", 0),
        ("p/nozzle", None, 0x80310000),
        ("p/nozzle_target", None, 0x80310000),
    ]
    lost = o.say("octoPrint/mqtt", b"disconnected")
    assert lost[0] == ("p/connection", 0.0, o.arrival, 0)
    assert sorted(name for name, _, _, status in lost if status == 0x80310000) == [
        f"p/{name}" for name in ("error", "file", "job", "state")
    ]
    assert o.say("octoPrint/mqtt", b"disconnected") == [("p/connection", 0.0, o.arrival, 0)]
    again = {"actual": 25.0, "target": 0.0, "_timestamp": T + 9}
    assert o.values("octoPrint/temperature/tool0", again) == {"nozzle": 25.0, "nozzle_target": 0.0}
    assert len(o.say("octoPrint/mqtt", b"disconnected")) == 3


def test_several_printers_and_their_places(ear: Any) -> None:
    o = ear("octoprint", topic="printers/{line}/{machine}/octoPrint")
    temperature = {"actual": 20.0, "target": 0.0, "_timestamp": T}
    for line, machine in (("7", "a"), ("8", "b")):
        found = o.say(f"printers/{line}/{machine}/octoPrint/temperature/bed", temperature)
        assert found[0][0] == f"{machine}/bed"
    assert o.infos["bed"].key.path == "drachten/shavers/8/b/bed"
    with pytest.raises(Ignored) as caught:
        o.say("printers/7/octoPrint/temperature/bed", temperature)
    assert caught.value.reason == "unmatched"


@pytest.mark.parametrize(
    ("topic", "reason"), [("event/Startup", "ignored"), ("other/x", "unmatched"), ("x", "unmatched")]
)
def test_what_is_not_for_us(ear: Any, topic: str, reason: str) -> None:
    with pytest.raises(Ignored) as caught:
        ear("octoprint", machine="p").say(f"octoPrint/{topic}", {"_timestamp": T})
    assert caught.value.reason == reason


def test_qos_0_is_from_receipt(ear: Any) -> None:
    o = ear("octoprint", machine="p")
    temperature = {"actual": 20.0, "target": 0.0, "_timestamp": T}
    o.say("octoPrint/temperature/bed", temperature)
    assert o.infos["bed"].guarantee == "end-to-end"
    o.say("octoPrint/temperature/bed", temperature, qos=0)
    assert o.infos["bed"].guarantee == "from-receipt"
