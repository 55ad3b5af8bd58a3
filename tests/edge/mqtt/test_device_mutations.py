"""Whatever a device says: readings, `Ignored` or a reason, and never anything else; what raises leaves no trace.

`FIELDLAB_FUZZ` says how many mutated payloads of each dialect; 1,000 by default.
"""

import copy
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.rows import Rows
from fieldlab.model import Guarantee, SignalInfo, SignalKey, SignalTable

COUNT = int(os.environ.get("FIELDLAB_FUZZ", "1000"))
NOW = 1_795_000_000_000_000_000
CONTEXT = SourceContext(name="m", agent="a", index=0, site="s", area="a", line="l", data=Path("unused"))
T = 1_795_000_000
VDA = {"headerId": 7, "timestamp": "2026-05-21T12:00:00.00Z", "manufacturer": "KIT", "serialNumber": "1"}
SEEDS: dict[str, list[tuple[str, Any]]] = {
    "octoprint": [
        ("octoPrint/event/PrintStarted", {"name": "a.g", "path": "x/a.g", "_timestamp": T}),
        ("octoPrint/event/PrintFailed", {"time": 3.5, "reason": "cancelled", "_timestamp": T}),
        ("octoPrint/event/PrinterStateChanged", {"state_id": "PRINTING", "state_string": "Printing", "_timestamp": T}),
        ("octoPrint/event/ZChange", {"new": 0.4, "old": None, "_timestamp": T}),
        ("octoPrint/event/Disconnected", {"_timestamp": T}),
        ("octoPrint/event/DisplayLayerProgress_layerChanged", {"currentLayer": "1", "totalLayer": "9"}),
        ("octoPrint/temperature/tool1", {"actual": 210.1, "target": 210.0, "_timestamp": T}),
        (
            "octoPrint/progress/printing",
            {"path": "a.g", "progress": 3, "printer_data": {"currentZ": 1.0, "progress": {"printTime": 3}}},
        ),
        ("octoPrint/mqtt", "disconnected"),
    ],
    "moonraker": [
        (
            "m/klipper/status",
            {
                "eventtime": 1.5,
                "status": {
                    "print_stats": {"filename": "a.g", "state": "printing", "message": "", "info": {"total_layer": 3}},
                    "webhooks": {"state": "ready", "state_message": "fine"},
                    "extruder1": {"temperature": 210.0, "target": 210.0, "power": 0.5},
                    "temperature_fan box": {"temperature": 30.0, "speed": 0.3, "rpm": None},
                    "motion_report": {"live_position": [1.0, 2.0, 3.0, 4.0], "live_velocity": 3.0},
                    "display_status": {"progress": 0.5},
                },
            },
        ),
        ("m/klipper/state/print_stats/state", {"eventtime": 1.0, "value": "complete"}),
        ("m/klipper/state/print_stats/info", {"eventtime": 1.0, "value": {"current_layer": 3}}),
        ("m/moonraker/status", {"server": "offline"}),
    ],
    "bambu": [
        (
            "device/1/report",
            {
                "print": {
                    "command": "push_status",
                    "msg": 0,
                    "sequence_id": "12",
                    "gcode_state": "RUNNING",
                    "subtask_name": "a",
                    "gcode_file": "a.gcode",
                    "nozzle_temper": 210.5,
                    "cooling_fan_speed": "9",
                    "mc_remaining_time": 3,
                    "wifi_signal": "-40dBm",
                    "print_error": 3,
                    "hms": [{"attr": 1, "code": 2}],
                    "ams": {
                        "tray_now": "5",
                        "ams": [{"id": "1", "temp": "20.1", "tray": [{"id": "1", "tray_type": "PLA"}]}],
                    },
                    "vt_tray": {"id": "254", "tray_type": "TPU"},
                }
            },
        ),
        ("device/1/report", {"print": {"command": "push_status", "msg": 1, "sequence_id": "13", "mc_percent": 3}}),
        ("device/1/report", {"info": {"command": "get_version"}}),
    ],
    "vda5050": [
        (
            "uagv/v2/KIT/1/state",
            {
                **VDA,
                "orderId": "o",
                "nodeStates": [{"nodeId": "n"}],
                "actionStates": [{"actionStatus": "RUNNING"}],
                "agvPosition": {"x": 1.0, "y": 2.0, "theta": 0.1, "mapId": "m", "positionInitialized": True},
                "batteryState": {"batteryCharge": 80.0, "charging": False},
                "operatingMode": "AUTOMATIC",
                "errors": [{"errorType": "t", "errorLevel": "FATAL", "errorDescription": "d"}],
                "loads": [{"loadId": "p", "weight": 3.0}],
                "safetyState": {"eStop": "NONE", "fieldViolation": False},
            },
        ),
        ("uagv/v2/KIT/1/visualization", {**VDA, "velocity": {"vx": 1.0}}),
        ("uagv/v2/KIT/1/connection", {**VDA, "connectionState": "CONNECTIONBROKEN"}),
        ("uagv/v2/KIT/1/factsheet", {**VDA, "typeSpecification": {"seriesName": "s", "maxLoadMass": 3}}),
    ],
}
ODD: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 1e308, -0.0, 5e-324, "", "nan", "1e999", "-", "\x00", "a/b", "é" * 300, "9" * 50,
    [], {}, [[]], [{}], [None], {"id": {}}, [{"id": "1"}, 3], [{"id": "1"}] * 3, {"a": {"b": {"c": []}}},
]  # fmt: skip


class Heard:
    """One dialect, its rows, and what came of its messages."""

    def __init__(self, form: str) -> None:
        keys: dict[str, Any] = {"machine": "p"} if form == "octoprint" else {}
        self.rows = Rows()
        self._table = SignalTable()
        self.dialect = dialect_of(MqttConfig(url="mqtt://host", format=form, **keys), CONTEXT, self)
        self.came = {"read": 0, "ignored": 0, "refused": 0}

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        assert info.states == {} or info.kind == "state"
        return self._table.index(info.key)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        return self._table.index(key)

    def say(self, topic: str, payload: bytes, *, retained: bool = False, qos: int = 1) -> None:
        added, error = 0, None
        try:
            added = self.dialect.read(topic.encode(), payload, NOW, self.rows, retained=retained, qos=qos)
        except (Ignored, ValueError) as e:
            error = e
        assert len(self.rows) == added
        assert not isinstance(error, Ignored) or error.reason in ("ignored", "unmatched", "stale")
        assert error is None or str(error), "a reason for the dead letter"
        self.came["read" if error is None else "ignored" if isinstance(error, Ignored) else "refused"] += 1
        if added:
            self.rows.build().check()


def places(document: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a document."""
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        at = todo.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            todo.append(at[key])
    return found


def mutated(seed: Any, random_: random.Random) -> bytes:
    document = copy.deepcopy(seed)
    for _ in range(random_.randrange(4)):
        where = places(document)
        if not where:
            break
        at, key = random_.choice(where)
        if random_.random() < 0.2 and isinstance(at, dict):
            del at[key]
        elif random_.random() < 0.2 and isinstance(at, dict):
            at[random_.choice(["id", "value", "x", "", "_x", "a/b", "progress"])] = at.pop(key)
        else:
            at[key] = copy.deepcopy(random_.choice(ODD))
    body = (document if isinstance(document, str) else json.dumps(document)).encode()
    if random_.random() < 0.2:
        at_byte = random_.randrange(len(body) + 1)
        body = body[:at_byte] + random_.randbytes(random_.randrange(3)) + body[at_byte + random_.randrange(3) :]
    return body


@pytest.mark.parametrize("form", SEEDS)
def test_mutated_payloads(form: str) -> None:
    random_ = random.Random(20261124)
    heard = Heard(form)
    for _ in range(COUNT):
        topic, seed = random_.choice(SEEDS[form])
        if random_.random() < 0.1:
            topic = topic.replace(random_.choice(topic), random_.choice(("/", "_", "+", "é", "")), 1)
        retained, qos = random_.random() < 0.1, random_.randrange(2)
        heard.say(topic, mutated(seed, random_), retained=retained, qos=qos)
    assert min(heard.came.values()) > 0, heard.came


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("form", SEEDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_json_anywhere(form: str, data: st.DataObject) -> None:
    heard = Heard(form)
    for _ in range(3):
        topic, seed = data.draw(st.sampled_from(SEEDS[form]))
        document = copy.deepcopy(seed)
        where = places(document)
        if where:
            at, key = data.draw(st.sampled_from(where))
            at[key] = data.draw(JSON)
        else:
            document = data.draw(JSON)
        heard.say(topic, json.dumps(document).encode(), retained=data.draw(st.booleans()))
        heard.say(topic, data.draw(st.binary(max_size=30)))
        heard.say(data.draw(st.text(max_size=40)), b"{}")
