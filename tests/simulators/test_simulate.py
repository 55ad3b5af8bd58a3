"""`fieldlab simulate` as a program: its events, its truth, and how it ends."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from simulators.truth import read_truth

PROGRAM = """
import argparse, sys
from fieldlab.cli import simulate
parser = argparse.ArgumentParser()
simulate.add_parser(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""
START = ["--start", "2026-01-01T06:00:00Z"]


class Program:
    """The command, running."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM, "simulate", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended: {self.errors()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def press_enter(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # communicate() would flush it

    def end(self) -> int:
        return self.process.wait(30)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@pytest.fixture
def simulate() -> Iterator[Callable[..., Program]]:
    running: list[Program] = []

    def start(*arguments: str) -> Program:
        running.append(Program(*arguments))
        return running[-1]

    yield start
    for program in running:
        program.process.kill()
        program.process.communicate()


def test_the_hall_holds_produces_and_ends(simulate: Callable[..., Program], tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    program = simulate("hall", "--hold", "--json", "--truth", str(path), "--speed", "20", "--broker", "amqtt")
    ready = program.event()
    assert ready["event"] == "ready"
    assert ready["opcua"].startswith("opc.tcp://127.0.0.1:")
    assert ready["mqtt"].startswith("mqtt://127.0.0.1:")
    assert ready["user"]
    password_file = Path(ready["password_file"])
    assert password_file.read_text().strip()
    assert [m["name"] for m in ready["machines"]] == ["cnc-07", "robot-03", "printer-02"]
    assert path.read_bytes() == b"", "it produces before it was told to"
    program.press_enter()
    assert program.event() == {"event": "started"}
    finished = program.event()
    truth = read_truth(path)
    bad = [p for p in truth.parts if not p.good]
    assert finished == {
        "event": "finished",
        "readings": len(truth.readings),
        "copies": 0,
        "parts": 225,
        "bad": len(bad),
        "complete": True,
        "unacknowledged": 0,
        "hash": finished["hash"],
    }
    assert len(truth.parts) == 225
    assert {f.kind for f in truth.faults} == {"tool_wear", "gripper_slip", "nozzle_clog"}
    for fault in truth.faults:
        assert fault.end is not None
        assert fault.first_part in {p.id for p in truth.parts}
    faults = {f.place: f for f in truth.faults}
    assert all(faults[p.place].start <= p.start < (faults[p.place].end or 0) for p in bad)
    program.process.send_signal(signal.SIGTERM)
    assert program.end() == 0
    assert not password_file.parent.exists(), "the broker's folder is left behind"


def test_the_same_seed_and_start_give_the_same_truth_at_any_speed(
    simulate: Callable[..., Program], tmp_path: Path
) -> None:
    def readings(*arguments: str) -> set[Any]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        program = simulate("single-mill", "--json", "--truth", str(path), "--duration", "24", *START, *arguments)
        program.close_stdin()
        assert program.end() == 0, program.errors()
        truth = read_truth(path)
        return {*truth.readings, *((p.id, p.good, *p.dimensions.items()) for p in truth.parts), *truth.faults}

    slow = readings("--speed", "60")
    assert len(slow) > 700
    assert readings("--speed", "max") == slow


@pytest.mark.parametrize("when", ["ready", "started"])
def test_sigterm_ends_it_at_any_time(simulate: Callable[..., Program], tmp_path: Path, when: str) -> None:
    path = tmp_path / "truth.jsonl"
    program = simulate("single-mill", "--json", "--truth", str(path), *(["--hold"] if when == "ready" else []))
    while program.event()["event"] != when:
        pass
    program.process.send_signal(signal.SIGTERM)
    if when == "started":
        assert program.event()["complete"] is False
    assert program.end() == 0, program.errors()
    read_truth(path)


def test_the_end_of_standard_input_ends_a_held_one(simulate: Callable[..., Program]) -> None:
    program = simulate("single-mill", "--hold", "--json")
    ready = program.event()
    assert (ready["mqtt"], ready["user"]) == (None, None), "a scenario without MQTT needs no broker"
    program.close_stdin()
    assert program.end() == 0, program.errors()


def test_a_killed_one_takes_its_broker_along(
    simulate: Callable[..., Program], require: Callable[[str, str], str], wait_until: Callable[..., Any]
) -> None:
    require("mosquitto", "mosquitto")
    program = simulate("hall", "--hold", "--json", "--broker", "mosquitto")
    folder = Path(program.event()["password_file"]).parent
    (broker,) = psutil.Process(program.process.pid).children()
    try:
        program.process.kill()
        wait_until(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE, what="the broker ends")
    finally:
        shutil.rmtree(folder)


def test_it_publishes_to_a_broker_that_it_is_given(
    simulate: Callable[..., Program], mosquitto: Callable[..., Any], tmp_path: Path
) -> None:
    broker = mosquitto()
    path = tmp_path / "truth.jsonl"
    access = ["--mqtt", broker.url, "--mqtt-user", broker.user, "--mqtt-password-file", str(broker.password_file)]
    program = simulate("steady", "--json", "--speed", "20", "--duration", "20", "--truth", str(path), *access)
    ready = program.event()
    assert (ready["mqtt"], ready["user"], ready["broker"]) == (broker.url, broker.user, "external")
    program.close_stdin()
    assert program.end() == 0, program.errors()
    assert {r.place.rpartition("/")[2] for r in read_truth(path).readings} == {"cnc-07", "robot-03", "printer-02"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["halls"], 2, "did you mean `hall`"),
        (["--duration", "-1"], 2, "duration: must be above 0"),
        (["--speed", "0"], 2, "must be above 0"),
        (["--start", "2026-01-01"], 2, "needs a time zone"),
        (["--mqtt-batch", "0"], 2, "must be at least 1"),
        (["--truth", "/nowhere/truth"], 2, "--truth:"),
        (["--mqtt", "mqtt://127.0.0.1:1", "--mqtt-password-file", "/nowhere/x"], 2, "--mqtt-password-file:"),
        (["--mqtt", "mqtt://127.0.0.1:1"], 1, "mqtt://127.0.0.1:1: cannot be reached"),
    ],
)
def test_what_is_wrong_is_told(
    simulate: Callable[..., Program], arguments: list[str], status: int, message: str
) -> None:
    program = simulate(*arguments)
    assert program.end() == status
    assert message in program.errors()


def test_it_lists_its_scenarios(simulate: Callable[..., Program]) -> None:
    out, _ = simulate("--list").process.communicate(timeout=30)
    assert "hall: " in out
    assert "tool_wear (severity 1) from part 41, repaired before part 56" in out
    program = simulate("--list", "--json")
    listed = {s["name"]: s for s in program.event()["scenarios"]}
    assert len(listed) >= 20
    assert len(listed["hall25"]["machines"]) == 25
    assert [h["kind"] for h in listed["bad-storm"]["habits"]] == ["bad_storm", "uncertain_storm"]
