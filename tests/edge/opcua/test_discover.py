"""`fieldlab discover opc.tcp://…`: what it prints runs as it is."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

UA = "http://opcfoundation.org/UA/"
MILL = {
    "uri": f"{UA}MachineTool/", "type": "MachineToolType", "name": "mill-1", "in": [f"{UA}Machinery/", 1001],
    "values": {"Production.ActiveProgram.Name": {"type": "String", "value": "shaft.nc"}},
}  # fmt: skip
ROBOT = [
    {"uri": f"{UA}Robotics/", "type": "MotionDeviceSystemType", "name": "robot-1", "in": [f"{UA}DI/", 5001]},
    {"uri": f"{UA}Robotics/", "type": "MotionDeviceType", "name": "arm", "into": "robot-1.MotionDevices"},
    {
        "uri": f"{UA}Robotics/", "type": "AxisType", "name": "axis_1", "into": "arm.Axes",
        "values": {"ParameterSet.ActualPosition": {"type": "Double", "value": 12.5, "unit": "degree"}},
    },
]  # fmt: skip
PACKER = {"uri": f"{UA}PackML/", "type": "PackMLBaseObjectType", "name": "packer-1"}


def fieldlab(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=90,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, check=False,
    )  # fmt: skip


def discovered(url: str, cwd: Path, *options: str, port: int = 0) -> dict[str, Any]:
    """The printed configuration, which is also written to cwd/line.toml."""
    done = fieldlab("discover", url, *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace("[place]", f'http = "127.0.0.1:{port}"\n\n[place]', 1) if port else done.stdout
    (cwd / "line.toml").write_text(text)
    return tomllib.loads(done.stdout)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Any]:
    """`agent()` runs `fieldlab agent line.toml` in tmp_path."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (tmp_path / "agent.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "fieldlab.cli", "agent", "line.toml"], cwd=tmp_path, stdout=log, stderr=log,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
                )
            )  # fmt: skip

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "agent.log").read_text()


def status(cwd: Path) -> dict[str, Any]:
    done = fieldlab("status", "--json", "--config", "line.toml", cwd=cwd)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def unread(cwd: Path, signals: Any) -> set[str]:
    """Which of these signals have no reading in the store, neither themselves nor a part of them."""
    done = fieldlab("report", "ledger", "--json", "--config", "line.toml", cwd=cwd)
    try:
        rows = json.loads(done.stdout)["signals"]
    except (ValueError, KeyError):
        return set(signals)
    read = {row["signal"] for row in rows if row["in_store"]}
    return {name for name in signals if not any(re.fullmatch(re.escape(name) + r"([.\[].*)?", one) for one in read)}


def test_companion_specifications(interop: Any, tmp_path: Path, wait_until: Any, agent: Any, free_port: Any) -> None:
    server = interop(
        nodesets=["di", "machinery", "ia", "isa95JobControl", "machineryJobs", "robotics", "machineTool", "packML"],
        instances=[MILL, *ROBOT, PACKER],
    )
    server.ask("analog", parent="press-4", name="force", low=0, high=40, unit="newton", value=12.0)
    server.ask("add", name="window", type="ExtensionObject")
    server.ask("analog", parent="press-4", name="PartId", low=0, high=1, unit="newton", value=1.0)
    found = discovered(server.url, tmp_path, "--security", "none", port=free_port())
    text = (tmp_path / "line.toml").read_text()
    for words in ("mill-1: Machine Tools, OPC 40501-1", "robot-1: Robotics, OPC 40010-1", "packer-1: PackML"):
        assert words in text
    signals = {f"{s['machine']}/{s['name']}": s for s in found["source"][0]["signal"]}
    assert signals["mill-1/Production.ActiveProgram.Name"]["kind"] == "text"
    mode = signals["mill-1/MachineTool.OperationMode"]
    assert (mode["kind"], mode["map"]["1"]) == ("state", "Automatic")
    position = signals["robot-1/arm.axis_1.ActualPosition"]
    assert position["unit"] == "°"
    assert re.fullmatch(r"nsu=urn:[^;]+;i=\d+", position["node"])
    force = signals["press-4/force"]
    assert (force["unit"], force["lsl"], force["usl"]) == ("N", 0.0, 40.0)
    assert "EURange" in text
    assert found["part"] == [{"machine": "press-4", "id": "PartId"}]
    assert "a structure, a signal a field: window.Low, window.High" in text
    charted = {s for chart in found["chart"] for s in chart["signals"]}
    assert {"robot-1/arm.axis_1.ActualPosition", "press-4/force"} <= charted
    assert not any("SerialNumber" in s for s in signals), "a nameplate is no signal"
    before = server.ask("subscriptions")
    assert (before["subscriptions"], before["sessions"], before["orphans"]) == ([], 0, 0), "it leaves nothing"
    checked = fieldlab("check", "line.toml", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    agent()
    running = wait_until(
        lambda: (s := status(tmp_path)) and s["sources"][0]["signals"] == len(signals) and s, 60, what="all signals"
    )
    assert running["sources"][0]["missing"] == {}
    wait_until(lambda: not unread(tmp_path, signals), 60, what="a reading of every signal in the store")


def test_our_simulator(tmp_path: Path, wait_until: Any, agent: Any, free_port: Any) -> None:
    port = free_port()
    simulator = subprocess.Popen(
        [sys.executable, "-m", "fieldlab.cli", "simulate", "single-mill", "--opcua-port", str(port)], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    try:
        url = f"opc.tcp://127.0.0.1:{port}"
        wait_until(lambda: fieldlab("discover", url, cwd=tmp_path).returncode == 0, 60, what="the simulator serves")
        found = discovered(url, tmp_path, port=free_port())
        assert found["source"][0]["security"] == "best"
        signals = {s["name"]: s for s in found["source"][0]["signal"]}
        assert signals["diameter"]["unit"] == "mm"
        assert (signals["diameter"]["lsl"], signals["diameter"]["usl"]) == (24.5, 25.5)
        assert signals["diameter"]["node"] == "nsu=urn:fieldlab:sim;s=cnc-07.diameter"
        assert signals["state"]["kind"] == "state"
        assert signals["part_id"]["kind"] == "text"
        assert found["part"] == [{"machine": "cnc-07", "id": "part_id", "genealogy": ["tool_id"]}]
        (chart,) = found["chart"]
        assert chart["per"] == "part"
        assert "cnc-07/diameter" in chart["signals"]
        assert fieldlab("check", "line.toml", cwd=tmp_path).returncode == 0
        agent()
        every = {f"cnc-07/{name}" for name in signals}
        wait_until(lambda: not unread(tmp_path, every), 60, what="a reading of every signal")
    finally:
        simulator.kill()
        simulator.wait()


def test_what_cannot_be_read_is_said_and_left_out(shared: Any, tmp_path: Path) -> None:
    server = shared(
        {
            "bytes": {"type": "ByteString", "value": "abc"},
            "wide": {"type": "Double", "value": [1.0] * 65},
            "three": {"type": "Double", "value": [1.0, 2.0, 3.0]},
            "odd name/#": {"type": "Double", "value": 1.0},
            "on": {"type": "Boolean", "value": True},
        }
    )
    done = fieldlab("discover", server.url, "--security", "none", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    (machine,) = [m for m in answer["machines"] if m["name"] == "Machine"]
    names = {s["name"] for s in machine["signals"]}
    prefix = server.prefix
    assert {f"{prefix}three", f"{prefix}odd_name", f"{prefix}on"} <= names
    left_out = " ".join(machine["left_out"])
    assert f"{prefix}bytes: ByteString" in left_out
    assert f"{prefix}wide: an array of 65" in left_out
    assert tomllib.loads(answer["configuration"])["agent"]["name"] == "edge-1"


def test_a_bounded_look(interop: Any, tmp_path: Path) -> None:
    names = [f"v{i}" for i in range(60)]
    server = interop(variables={n: {"type": "Double", "value": 1} for n in names}, browseLimit=7, readLimit=11)
    found = discovered(server.url, tmp_path, "--security", "none")
    assert sorted(s["name"] for s in found["source"][0]["signal"]) == sorted(names), "BrowseNext, calls of 7 and 11"
    cut = fieldlab("discover", server.url, "--security", "none", "--max-nodes", "20", cwd=tmp_path)
    assert "only the first 20 nodes" in cut.stdout
    assert cut.stdout.count("[[source.signal]]") < 20


def test_no_server_and_no_security(interop: Any, tmp_path: Path, free_port: Any) -> None:
    gone = fieldlab("discover", f"opc.tcp://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert gone.returncode == 1
    assert "is the server running" in gone.stderr
    server = interop(security=["none"])
    plain = fieldlab("discover", server.url, cwd=tmp_path)
    assert plain.returncode == 1
    assert "offers no security" in plain.stderr
    assert fieldlab("discover", "http://x", cwd=tmp_path).returncode == 2
    empty = fieldlab("discover", server.url, "--security", "none", cwd=tmp_path)
    assert (empty.returncode, empty.stdout) == (1, "")


def test_events_are_proposed_where_something_reports_them(interop: Any, tmp_path: Path) -> None:
    server = interop()
    server.ask("analog", parent="press-4", name="force", low=0, high=40, unit="newton", value=12.0)
    assert "events" not in discovered(server.url, tmp_path, "--security", "none")["source"][0]
    server.ask("notifier", name="ram")
    found = discovered(server.url, tmp_path, "--security", "none")
    assert found["source"][0]["events"] == [{"machine": "press-4"}]
    done = fieldlab("check", "line.toml", cwd=tmp_path)
    assert "events of i=2253: BaseEventType" in done.stdout
    assert done.returncode == 0, done.stdout
