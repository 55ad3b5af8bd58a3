"""VDA 5050 messages of a vehicle.

Source of the samples: github.com/VDA5050/VDA5050, json_schemas (state, visualization, connection, factsheet: field
names, required fields, words) and VDA5050_EN.md (topic levels `uagv/v2/KIT/0001/…`, QoS, last will, order handling).
"""

import json
from typing import Any

import pytest

from edge.sources.mqtt.dialect import Ignored

S = 1_000_000_000
NOON = 1_779_364_800 * S  # 2026-05-21T12:00:00Z
HEADER = {"version": "2.0.0", "manufacturer": "KIT", "serialNumber": "0001"}
NODE = {"nodeId": "n2", "sequenceId": 2, "released": True}
STATE: dict[str, Any] = {
    "orderId": "order-17",
    "orderUpdateId": 1,
    "lastNodeId": "n1",
    "lastNodeSequenceId": 0,
    "driving": True,
    "paused": False,
    "newBaseRequest": False,
    "operatingMode": "AUTOMATIC",
    "nodeStates": [NODE],
    "edgeStates": [],
    "actionStates": [{"actionId": "a1", "actionType": "pick", "actionStatus": "WAITING"}],
    "agvPosition": {"x": 4.2, "y": -1.5, "theta": 1.57, "mapId": "hall-3", "positionInitialized": True},
    "velocity": {"vx": 0.8, "vy": 0.0, "omega": 0.1},
    "loads": [{"loadId": "pallet-9", "loadType": "EPAL", "weight": 250.0}],
    "batteryState": {"batteryCharge": 76.5, "batteryVoltage": 25.1, "charging": False, "reach": 3200},
    "errors": [
        {"errorType": "orderError", "errorLevel": "WARNING", "errorDescription": "node not reachable"},
        {"errorType": "laserScanner", "errorLevel": "FATAL"},
    ],
    "information": [],
    "safetyState": {"eStop": "NONE", "fieldViolation": False},
}


def message(topic: str, header: int, second: int = 0, **fields: Any) -> tuple[str, dict[str, Any]]:
    stamp = f"2026-05-21T12:00:{second:02d}.00Z"
    return f"uagv/v2/KIT/0001/{topic}", {"headerId": header, "timestamp": stamp, **HEADER, **fields}


def state(header: int, second: int = 0, **changes: Any) -> tuple[str, dict[str, Any]]:
    return message("state", header, second, **{**STATE, **changes})


def test_a_state(ear: Any) -> None:
    v = ear("vda5050")
    said = v.say(*state(1))
    assert {time for _, _, time, _ in said} == {NOON}
    assert {name.partition("/")[2]: value for name, value, _, _ in said} == {
        "x": 4.2,
        "y": -1.5,
        "theta": 1.57,
        "localized": 1.0,
        "vx": 0.8,
        "vy": 0.0,
        "omega": 0.1,
        "battery": 76.5,
        "battery_voltage": 25.1,
        "charging": 0.0,
        "reach": 3200.0,
        "driving": 1.0,
        "paused": 0.0,
        "order_update": 1.0,
        "last_node_sequence": 0.0,
        "field_violation": 0.0,
        "map": "hall-3",
        "last_node": "n1",
        "order_id": "order-17",
        "operating_mode": 0.0,
        "e_stop": 0.0,
        "order": "order-17",
        "state": 6.0,
        "errors": 2.0,
        "error_level": 4.0,
        "error": "orderError: node not reachable; laserScanner",
        "loads": 1.0,
        "load": "pallet-9",
        "load_weight": 250.0,
    }
    units = {name: info.unit for name, info in v.infos.items() if info.unit}
    assert (units["x"], units["theta"], units["vx"], units["battery"], units["load_weight"]) == (
        "m",
        "rad",
        "m/s",
        "%",
        "kg",
    )
    assert v.infos["operating_mode"].states["2"] == "MANUAL"
    assert v.infos["x"].key.place.machine == "0001"


def test_an_order_lasts_until_nothing_of_it_is_left(ear: Any) -> None:
    v = ear("vda5050")
    assert v.values(*state(1))["order"] == "order-17"
    done = [{"actionId": "a1", "actionStatus": "FINISHED"}, {"actionId": "a2", "actionStatus": "FAILED"}]
    assert v.values(*state(2, 1, nodeStates=[], actionStates=STATE["actionStates"]))["order"] == "order-17"
    assert v.values(*state(3, 2, nodeStates=[NODE], actionStates=done))["order"] == "order-17"
    found = v.values(*state(4, 3, nodeStates=[], actionStates=done))
    assert (found["order"], found["order_id"]) == ("", "order-17")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "driving"),
        ({"driving": False}, "working"),
        ({"driving": False, "nodeStates": [], "actionStates": []}, "idle"),
        (
            {"driving": False, "nodeStates": [], "actionStates": [], "batteryState": {"charging": True}},
            "charging",
        ),
        ({"paused": True}, "paused"),
        ({"operatingMode": "MANUAL"}, "manual"),
        ({"safetyState": {"eStop": "AUTOACK", "fieldViolation": True}}, "stopped"),
        ({"errors": [{"errorType": "x", "errorLevel": "FATAL"}]}, "stopped"),
    ],
)
def test_what_a_vehicle_does_in_one_word(ear: Any, changes: Any, word: str) -> None:
    v = ear("vda5050")
    number = v.values(*state(1, **{"errors": [], **changes}))["state"]
    assert v.infos["state"].states[str(int(number))] == word


def test_a_time_without_its_zone_is_utc(ear: Any) -> None:
    topic, document = state(1)
    said = ear("vda5050").say(topic, {**document, "timestamp": "2026-05-21T12:00:00.000"})
    assert {time for _, _, time, _ in said} == {NOON}


def test_a_visualization_tells_the_same_under_the_same_names(ear: Any) -> None:
    v = ear("vda5050")
    first = v.say(*state(1))
    seen = v.say(*message("visualization", 1, agvPosition=STATE["agvPosition"], velocity=STATE["velocity"]))
    assert set(seen) <= set(first), "one point, told twice"
    moved = {**STATE["agvPosition"], "x": 4.4}
    assert v.values(*message("visualization", 2, 1, agvPosition=moved))["x"] == 4.4


def test_gaps_in_the_numbers_are_known_losses(ear: Any) -> None:
    v = ear("vda5050")
    v.say(*state(10))
    v.say(*message("visualization", 3, 0, velocity=STATE["velocity"]))
    v.say(*state(14, 1))
    assert v.dialect.counters["lost_messages"] == 3


def test_lost_readings_are_told_for_each_signal(ear: Any) -> None:
    v = ear("vda5050")
    v.say(*message("visualization", 3, 0, velocity=STATE["velocity"]))
    topic, document = message("visualization", 6, 1, velocity=STATE["velocity"])
    v.dialect.read(topic.encode(), json.dumps(document).encode(), v.arrival, v.rows, retained=False, qos=0)
    assert v.rows.lost == {0: 2, 1: 2, 2: 2}
    v.rows.build()
    assert v.rows.lost == {}
    (hole,) = v.dialect.holes()
    assert (hole.signals, hole.start, hole.end) == ((0, 1, 2), NOON, NOON + S)
    assert (hole.state, hole.lost, v.dialect.holes()) == ("ended", 2, [])
    assert "2 messages of 0001 never came" in hole.detail
    for header in (6, 2, 3, 3):  # again, and a vehicle that started anew
        v.say(*message("visualization", header, 2, velocity=STATE["velocity"]))
    assert v.dialect.counters["lost_messages"] == 2


def test_a_vehicle_goes(ear: Any) -> None:
    v = ear("vda5050")
    assert v.say(*message("connection", 1, connectionState="ONLINE"))[0] == ("0001/connection", 1.0, NOON, 0)
    signals = len(v.say(*state(1, 1)))
    gone = v.say(*message("connection", 2, 2, connectionState="OFFLINE"))
    assert gone[0] == ("0001/connection", 0.0, NOON + 2 * S, 0)
    assert {(time, status, value) for _, value, time, status in gone[1:]} == {(NOON + 2 * S, 0x80310000, None)}
    assert len(gone) == signals + 1
    v.say(*message("connection", 3, 3, connectionState="ONLINE"))
    v.say(*message("visualization", 1, 4, velocity={"vx": 0.1}))
    broken = v.say(*message("connection", 3, 3, connectionState="CONNECTIONBROKEN"))
    assert broken == [("0001/connection", 0.0, v.arrival, 0), ("0001/vx", None, v.arrival, 0x80310000)], (
        "the last will was written at the start: its time is not that of the loss"
    )


def test_a_factsheet(ear: Any) -> None:
    facts: dict[str, Any] = {
        "typeSpecification": {
            "seriesName": "Mover 3",
            "agvKinematic": "DIFF",
            "agvClass": "CARRIER",
            "maxLoadMass": 500.0,
            "localizationTypes": ["NATURAL"],
            "navigationTypes": ["AUTONOMOUS"],
        },
        "physicalParameters": {"speedMin": 0.1, "speedMax": 2.0},
    }
    assert ear("vda5050").values(*message("factsheet", 1, **facts)) == {
        "series": "Mover 3",
        "kinematic": "DIFF",
        "class": "CARRIER",
        "max_load": 500.0,
        "max_speed": 2.0,
    }


def test_what_version_3_renamed(ear: Any) -> None:
    v = ear("vda5050", topic="vda5050/v3/+/{machine}")
    fields = {
        "mobileRobotPosition": {"x": 1.0, "y": 2.0, "theta": 0.0, "mapId": "m", "localized": True},
        "powerSupply": {"stateOfCharge": 54.9, "charging": False},
        "safetyState": {"activeEmergencyStop": "REMOTE", "fieldViolation": False},
    }
    header = {"headerId": 1, "timestamp": "2026-05-21T12:00:00.000Z"}
    found = v.values("vda5050/v3/KIT/0001/state", {**header, **fields})
    assert (found["x"], found["battery"], found["e_stop"], found["localized"]) == (1.0, 54.9, 3.0, 1.0)
    broken = {**header, "connectionState": "CONNECTION_BROKEN"}
    assert v.values("vda5050/v3/KIT/0001/connection", broken)["connection"] == 0.0


def test_what_cannot_be_read(ear: Any) -> None:
    v = ear("vda5050")
    for topic, payload in (
        ("state", []),
        ("state", {"timestamp": "yesterday"}),
        ("state", {"timestamp": 3}),
        ("connection", {"connectionState": "AWAY"}),
        ("connection", {"connectionState": []}),
    ):
        with pytest.raises(ValueError, match=r"."):
            v.say(f"uagv/v2/KIT/0001/{topic}", payload)
    for topic in ("uagv/v2/KIT/0001/order", "uagv/v2/KIT/state", "other/v2/KIT/0001/state"):
        with pytest.raises(Ignored):
            v.say(topic, {})
