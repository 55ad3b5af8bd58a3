"""The dialects: read by a decoder and a client that we did not write, and through the whole platform."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulators.machines import MACHINES, Reading
from simulators.protocols.dialects import Message, dialect_of
from simulators.runner import Access, Runner
from simulators.scenarios import load
from simulators.truth import TruthWriter

HERE = Path(__file__).parent
START = 1_763_900_000_123_000_000
PLACE = "drachten/hall/1/m-1"
ALL = [(kind, dialect) for kind, m in MACHINES.items() for dialect in m.DIALECTS if m.PROTOCOL == "mqtt"]


def said(kind: str, dialect: str, parts: int = 3) -> list[Message]:
    machine = MACHINES[kind]("m-1", seed=4, start=START, sample_period=10**8, cycle=10**9, parts=parts)
    spoken = dialect_of(dialect, PLACE, machine.signals)
    assert spoken is not None
    return [*spoken.hello(START), *spoken.encode(machine.step(2**62).readings)]


def test_npm_decodes_what_the_sparkplug_cell_says(sparkplug_payload: str) -> None:
    messages = said("filling_cell", "sparkplug")
    done = subprocess.run(
        [sparkplug_payload, str(HERE / "decode.js")],
        input="".join(base64.b64encode(m.payload).decode() + "\n" for m in messages),
        env={**os.environ, "NODE_PATH": str(HERE.parent / "interop" / "node_modules")},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    node, device, *data = [json.loads(line) for line in done.stdout.splitlines()]
    assert [m.topic for m in messages[:3]] == [
        "spBv1.0/hall/NBIRTH/1-m-1", "spBv1.0/hall/DBIRTH/1-m-1/m-1", "spBv1.0/hall/DDATA/1-m-1/m-1",
    ]  # fmt: skip
    assert {m["name"] for m in node["metrics"]} == {"bdSeq", "Node Control/Rebirth"}
    names = {m["alias"]: (m["name"], m["type"]) for m in device["metrics"]}
    assert {name for name, _ in names.values()} == {s.name for s in MACHINES["filling_cell"].SIGNALS}
    (weight,) = [m for m in device["metrics"] if m["name"] == "fill_weight"]
    assert weight["type"] == "Double"
    assert weight["properties"]["engUnit"]["value"] == "g"
    assert [p["seq"] for p in (node, device, *data)] == [n % 256 for n in range(len(messages))]
    decoded = [(names[m["alias"]][0], m["timestamp"] * 10**6, m["value"]) for p in data for m in p["metrics"]]
    assert decoded == [(r.signal, r.ts, r.value) for m in messages for r in m.told]
    assert len(decoded) > 60


def test_mosquitto_sub_reads_a_printer(require: Callable[[str, str], str], mosquitto: Callable[..., Any]) -> None:
    program = require("mosquitto_sub", "mosquitto-clients")
    broker = mosquitto()
    login = ["-u", broker.user, "-P", broker.password_file.read_text().strip()]
    client = [program, "-p", str(broker.port), *login, "-t", "voron-1/#", "-q", "1", "-i", "listener"]
    subprocess.run([*client, "-c", "-E"], check=True, timeout=20)  # it subscribes, and comes back later

    async def go() -> int:
        with TruthWriter(None) as truth:
            access = Access(url=broker.url, user=broker.user, password=login[3])
            scenario = load("print-farm", duration=40.0)
            plans = tuple(p for p in scenario.machine if p.dialect == "moonraker")
            plan = msgspec.structs.replace(plans[0], name="voron-1", fault=())
            async with Runner(msgspec.structs.replace(scenario, machine=(plan,)), truth, mqtt=access) as runner:
                assert await runner.produce(speed=float("inf")) == (True, 0)
            return truth.readings

    sent = asyncio.run(go())
    done = subprocess.run([*client, "-c", "-W", "2"], capture_output=True, timeout=30, check=False)
    statuses = [json.loads(line).get("status", {}) for line in done.stdout.splitlines()]
    temperatures = [s["extruder"]["temperature"] for s in statuses if "extruder" in s]
    assert len(temperatures) == 40
    assert all(200 < t < 220 for t in temperatures)
    assert sent > 150


@pytest.mark.parametrize(("kind", "dialect"), [pair for pair in ALL if pair[1] != "json"])
def test_a_dialect_tells_every_signal_that_it_can(kind: str, dialect: str) -> None:
    messages = said(kind, dialect)
    spoken = dialect_of(dialect, PLACE, MACHINES[kind].SIGNALS)
    assert spoken is not None
    told = {r.signal for m in messages for r in m.told}
    assert told == (spoken.told or {s.name for s in MACHINES[kind].SIGNALS})
    for affected in MACHINES[kind].FAULTS.values():
        assert dialect != "sparkplug" or told >= set(affected)
    assert all(isinstance(m.payload, bytes) and m.qos in (0, 1) for m in messages)


def test_a_bambu_printer_tells_everything_when_it_is_asked() -> None:
    spoken = dialect_of("bambu", PLACE, ())
    assert spoken is not None
    spoken.encode([Reading("nozzle", START, 210.5), Reading("job", START, "cap.gcode")])
    ask = json.dumps({"pushing": {"command": "pushall"}}).encode()
    (answer,) = spoken.answer("device/m-1/request", ask, START)
    report = json.loads(answer.payload)["print"]
    assert (report["msg"], report["nozzle_temper"], report["gcode_state"]) == (0, 210.5, "RUNNING")
    for nonsense in (b"", b"[]", b"{}", b'{"pushing": 1}', b"\xff"):
        assert spoken.answer("device/m-1/request", nonsense, START) == []


def test_births_are_said_anew_when_they_are_asked_for() -> None:
    machine = MACHINES["filling_cell"]("m-1", seed=4, start=START, sample_period=10**8, cycle=10**9, parts=1)
    spoken = dialect_of("sparkplug", PLACE, machine.signals)
    assert spoken is not None
    (request,) = spoken.requests
    again = spoken.answer(request, b"\x12\x16\x0a\x14Node Control/Rebirth", START)
    assert [m.topic.split("/")[2] for m in again] == ["NBIRTH", "DBIRTH"]
    assert spoken.answer(request, b"Node Control/Next Server", START) == []


EVERY = """
title = "each dialect once"
sample_period = 0.1
cycle_time = 1.0
duration = 12.0
line = "1"
""" + "".join(
    f'[[machine]]\nname = "{dialect}-1"\nkind = "{kind}"\ndialect = "{dialect}"\n'
    for dialect, kind in {dialect: kind for kind, dialect in ALL}.items()
    if dialect != "sparkplug"  # a host that comes later cannot read what was said before the births it asks for
)


def test_dialects_go_through_the_agent_and_nothing_is_lost(tmp_path: Path, require: Callable[[str, str], str]) -> None:
    require("mosquitto", "mosquitto")
    scenario = tmp_path / "every.toml"
    scenario.write_text(EVERY)
    command = [sys.executable, "-m", "fieldlab.cli", "demo", "--scenario", str(scenario), "--seconds", "12"]
    done = subprocess.run(
        [*command, "--headless", "--json", "--keep", str(tmp_path / "kept")],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    readings = json.loads(done.stdout)["readings"]
    assert readings["sent"] > 2_000
    assert (readings["lost"], readings["altered"], readings["duplicated"]) == (0, 0, 0)
