"""Discovery of every dialect on a real broker: a whole agent with what it prints stores what was played."""

import asyncio
import contextlib
import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge.proposal import Frame, Proposal, to_toml
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.discover import default_filters, discover
from fieldlab.cli.common import ask_agent

T = time.time() - 30
NATIVE = "fieldlab/drachten/shavers/3/cnc-07"
HEADER = {"version": "2.0.0", "manufacturer": "KIT", "serialNumber": "0001", "timestamp": "2026-05-21T12:00:00Z"}


class Case(NamedTuple):
    """What is played (topic, payload), what must be stored of it (machine/signal), and keys of the printed sources."""

    messages: list[tuple[str, Any]]
    signals: set[str]
    sources: list[dict[str, Any]]
    parts: tuple[dict[str, Any], ...] = ()


# Where the messages of the dialects come from is said in the tests of each dialect.
CASES = {
    "native": Case(
        [
            (f"{NATIVE}/diameter", {"value": 25.01, "ts": T, "status": 0}),
            (f"{NATIVE}/load", {"value": [1.5, 2.5], "ts": [T, T + 1]}),
            (f"{NATIVE}/part_id", {"value": "P-1", "ts": T}),
            (f"{NATIVE}/_finding", {"state": "raised"}),
        ],
        {"cnc-07/diameter", "cnc-07/load", "cnc-07/part_id"},
        [{"format": "json", "topic": "fieldlab/{site}/{area}/{line}/{machine}/{signal}"}],
        ({"machine": "cnc-07", "id": "part_id"},),
    ),
    "octoprint": Case(
        [
            ("octoPrint/mqtt", "connected"),
            ("octoPrint/event/PrintStarted", {"name": "a.g", "path": "a.g", "_event": "PrintStarted", "_timestamp": 0}),
            ("octoPrint/event/ZChange", {"new": 0.4, "old": 0.2, "_event": "ZChange", "_timestamp": 0}),
            ("octoPrint/event/FileAdded", {"name": "a.g", "_event": "FileAdded", "_timestamp": 0}),
            ("octoPrint/temperature/tool0", {"actual": 210.3, "target": 210.0, "_timestamp": 0}),
            ("octoPrint/temperature/bed", {"actual": 60.1, "target": 60.0, "_timestamp": 0}),
            ("octoPrint/progress/printing", {"path": "a.g", "progress": 42, "_timestamp": 0}),
            ("octoPrint/hass/state", {"state": "Printing"}),
        ],
        {f"octoPrint/{each}" for each in ("connection", "state", "job", "file", "z", "nozzle", "bed", "progress")},
        [{"format": "octoprint", "topic": "octoPrint", "machine": "octoPrint"}],
        ({"machine": "octoPrint", "job": "job", "longest": "48h"},),
    ),
    "moonraker": Case(
        [
            ("voron-1/moonraker/status", {"server": "online"}),
            (
                "voron-1/klipper/status",
                {
                    "eventtime": 2345.6,
                    "status": {
                        "print_stats": {"filename": "b.g", "state": "printing"},
                        "extruder": {"temperature": 214.5, "target": 215.0},
                        "heater_bed": {"temperature": 60.5},
                        "fan": {"speed": 0.5},
                    },
                },
            ),
            ("voron-2/klipper/state/extruder/temperature", {"eventtime": 2345.6, "value": 199.5}),
            ("voron-1/moonraker/api/response", {"jsonrpc": "2.0", "result": 3}),
        ],
        {f"voron-1/{each}" for each in ("connection", "state", "job", "nozzle", "bed", "fan")} | {"voron-2/nozzle"},
        [{"format": "moonraker", "topic": "{machine}"}],
        tuple({"machine": f"voron-{i}", "job": "job", "longest": "48h"} for i in (1, 2)),
    ),
    "bambu": Case(
        [
            (
                "device/01P00A1/report",
                {
                    "print": {
                        "command": "push_status",
                        "msg": 1,
                        "sequence_id": "7",
                        "nozzle_temper": 219.5,
                        "gcode_state": "RUNNING",
                        "subtask_name": "cap",
                        "cooling_fan_speed": "15",
                    }
                },
            ),
            ("device/01P00A1/report", {"print": {"command": "push_status", "msg": 1, "bed_temper": 55.0}}),
            ("device/01P00A1/request", {"pushing": {"sequence_id": "1", "command": "pushall"}}),
        ],
        {f"01P00A1/{each}" for each in ("nozzle", "state", "job", "fan", "bed")},
        [{"format": "bambu", "topic": "device/{machine}", "session": "clean"}],
        ({"machine": "01P00A1", "job": "job", "longest": "48h"},),
    ),
    "vda5050": Case(
        [
            (
                "uagv/v2/KIT/0001/state",
                {
                    **HEADER,
                    "headerId": 1,
                    "driving": True,
                    "orderId": "o-1",
                    "nodeStates": [{"nodeId": "n"}],
                    "batteryState": {"batteryCharge": 80.5, "batteryVoltage": 25.5, "charging": False},
                    "agvPosition": {"x": 1.5, "y": 2.5, "theta": 0.5, "mapId": "m", "positionInitialized": True},
                },
            ),
            ("uagv/v2/KIT/0001/connection", {**HEADER, "headerId": 1, "connectionState": "ONLINE"}),
            ("uagv/v2/KIT/0001/order", {**HEADER, "headerId": 1, "orderId": "o-1", "orderUpdateId": 0}),
        ],
        {f"0001/{each}" for each in ("state", "battery", "battery_voltage", "x", "order", "connection")},
        [{"format": "vda5050", "topic": "uagv/v2/+/{machine}"}],
        ({"machine": "0001", "id": "order", "longest": "2h"},),
    ),
    "plain": Case(
        [
            ("plant/hall/oven/temperature", "181.5"),
            ("plant/hall/oven/door", "true"),
            ("plant/hall/press/force", "12.25"),
            ("plant/hall/press/mode", '"auto"'),
            ("plant/hall/press/log", "started"),
        ],
        {"oven/temperature", "oven/door", "press/force", "press/mode", "press/log"},
        [
            {"format": "json", "topic": "plant/hall/{machine}/{signal}", "value": ""},
            {"format": "plain", "topic": "plant/hall/{machine}/{signal}", "topics": ["plant/hall/+/log"]},
        ],
    ),
    "several": Case(
        [
            ("tele/plug-1/SENSOR", {"Time": "2026-11-23T20:00:00", "ENERGY": {"Power": 3.5, "Voltage": 230.5}}),
            ("tele/plug-2/SENSOR", {"Time": "2026-11-23T20:00:00", "ENERGY": {"Power": 4.5}, "Switch": "ON"}),
            ("zigbee/kitchen", {"temperature": 21.5, "humidity": 40.25, "linkquality": 80}),
            ("lab/rig/flow", {"value": 3.25, "unit": "l/min", "seq": 12, "timestamp": "2026-11-23T20:00:00Z"}),
        ],
        {"plug-1/ENERGY.Power", "plug-2/ENERGY.Power", "plug-1/ENERGY.Voltage", "plug-2/Switch"}
        | {"kitchen/temperature", "kitchen/humidity", "rig/flow"},
        [
            {"topic": "tele/{machine}/SENSOR", "time": ""},
            {"topic": "zigbee/{machine}"},
            {"topic": "lab/{machine}/{signal}", "value": "value", "time": "timestamp"},
        ],
    ),
    "sparkplug": Case(
        [],
        {"edge-a/node_temp", "mill/spindle.load", "mill/tool", "mill/on"},
        [{"format": "sparkplug"}],
    ),
}


@pytest.fixture
def messages(edge_node: Any) -> Callable[[str], Iterator[tuple[str, str | bytes]]]:
    """`messages(case)` are those of a case as of now; OctoPrint's times and Sparkplug's births are new each time."""
    node = edge_node("shavers", "edge-a")

    def sparkplug() -> Iterator[tuple[str, bytes]]:
        yield node.nbirth(node.metric("node_temp", 40.5, properties={"engUnit": {"type": "String", "value": "°C"}}))
        load = node.metric("spindle/load", 50.5, alias=7, properties={"engUnit": {"type": "String", "value": "%"}})
        metrics = load, node.metric("tool", "T1", "String", alias=8), node.metric("on", value=True, type="Boolean")
        yield node.send("DBIRTH", *metrics, device="mill")
        yield node.send("DDATA", node.metric(None, 51.5, alias=7), device="mill")

    def now(case: str) -> Iterator[tuple[str, str | bytes]]:
        if case == "sparkplug":
            yield from sparkplug()
        for topic, payload in CASES[case].messages:
            made = payload
            if isinstance(payload, dict):
                made = json.dumps({**payload, "_timestamp": int(time.time())} if "_timestamp" in payload else payload)
            yield topic, made

    return now


@contextlib.contextmanager
def playing(play: Callable[[], None]) -> Iterator[None]:
    """Play again and again meanwhile."""
    ended = threading.Event()

    def again() -> None:
        while not ended.is_set():
            play()
            ended.wait(0.15)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("names", [*([name] for name in CASES), list(CASES)], ids=[*CASES, "mixed"])
def test_what_is_printed_reads_what_was_heard(
    names: list[str],
    mosquitto: Any,
    publisher: Any,
    messages: Any,
    context: Any,
    tmp_path: Path,
    wait_until: Any,
    live_agent: Any,
) -> None:
    broker = mosquitto()
    speaker = publisher(broker)

    def play() -> None:
        for name in names:
            for topic, payload in messages(name):
                speaker.send(topic, payload)

    keys = {"kind": "mqtt", "url": broker.url, "username": broker.user, "password_file": broker.password_file}
    with playing(play):
        proposal = asyncio.run(discover(MqttConfig(**keys, topics=("#",)), context, keys, seconds=1.0))
    text = to_toml(proposal, Frame(name="edge-1", data="data", site="drachten", area="shavers", line="3"))
    printed = tomllib.loads(text)
    found = [{key: each.get(key) for key in wanted} for name in names for wanted in CASES[name].sources
             for each in printed["source"] if wanted.items() <= each.items()]  # fmt: skip
    assert found == [each for name in names for each in CASES[name].sources], text
    assert len(printed["source"]) == len(found), text
    parts = [each for name in names for each in CASES[name].parts]
    assert all(each in printed.get("part", []) for each in parts), text
    file = tmp_path / "line.toml"
    file.write_text(text.replace("[agent]", '[agent]\nhttp = ""', 1), "utf-8")
    expected = {signal for name in names for signal in CASES[name].signals}
    proposed = {f"{machine.name}/{signal.name}" for machine in proposal.machines for signal in machine.signals}
    assert expected <= proposed
    with live_agent(file) as data, playing(play):

        def stored() -> set[str]:
            counts = ask_agent(data, "/query/counts") or {}
            return {"/".join(path.split("/")[3:]) for path, count in counts.items() if count}

        wait_until(lambda: stored() >= expected, 30, what=f"{expected} in {stored()}")
        status = ask_agent(data, "/status")
        assert sum(each["counters"]["set_aside"] for each in status["sources"]) == 0, status
        assert stored() <= proposed | {f"{each.name}/ams" for each in proposal.machines}, (
            "nothing that was not proposed"
        )


def test_units_kinds_rates_and_charts(
    mosquitto: Any, publisher: Any, messages: Any, context: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    speaker = publisher(broker)
    speaker.send("plant/hall/oven/setting", "180.5", retain=True)

    def play() -> None:
        for name in ("sparkplug", "several", "octoprint"):
            for topic, payload in messages(name):
                speaker.send(topic, payload)

    keys = {"kind": "mqtt", "url": broker.url, "username": broker.user, "password_file": broker.password_file}
    with playing(play):
        proposal: Proposal = asyncio.run(discover(MqttConfig(**keys, topics=("#",)), context, keys, seconds=1.0))
    topics = {each.topic: each for each in proposal.topics}
    kept = topics["plant/hall/oven/setting"]
    assert (kept.messages, kept.retained, kept.rate, kept.types) == (0, 1, 0.0, ("number",))
    flowing = topics["zigbee/kitchen"]
    assert flowing.messages > 1
    assert flowing.rate == pytest.approx(flowing.messages, rel=0.2)
    assert topics["octoPrint/hass/state"].not_read
    signals = {f"{m.name}/{s.name}": s for m in proposal.machines for s in m.signals}
    assert (signals["mill/spindle.load"].unit, signals["edge-a/node_temp"].unit) == ("%", "°C")
    assert (signals["mill/tool"].kind, signals["mill/on"].kind, signals["rig/flow"].unit) == ("text", "state", "l/min")
    assert (signals["octoPrint/nozzle"].unit, signals["octoPrint/job"].kind) == ("°C", "text")
    printed = tomllib.loads(text := to_toml(proposal, Frame()))
    charts = {each["name"]: each for each in printed["chart"]}
    assert charts["octoPrint measured"]["per"] == "part"
    assert set(charts["octoPrint measured"]["signals"]) == {"octoPrint/nozzle", "octoPrint/bed"}
    assert charts["mill measured"]["signals"] == ["mill/spindle.load"]
    assert "#   plant/hall/oven/setting: retained, json, number" in text
    assert {"match": "rig/flow", "unit": "l/min"} in printed["signal"]


def test_a_bambu_printer_is_never_asked_for_its_requests() -> None:
    assert default_filters("bblp") == ("device/+/report",)
    assert default_filters("") == ("#",)
