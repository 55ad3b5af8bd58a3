"""The tester's console: commands, HTTP on loopback only, keys, and what the screen shows."""

import asyncio
import io
import json
import os
import pty
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulators.console import Control, ControlError, ControlServer, Screen
from simulators.runner import Runner
from simulators.scenarios import load
from simulators.simulation import Simulation, of_kind
from simulators.truth import TruthWriter


@pytest.fixture(scope="module")
def mill() -> Iterator[Simulation]:
    with Simulation(of_kind("cnc_mill", name="cnc-07"), speed=10) as running:
        running.wait_for_parts(1)
        yield running


def test_commands_break_and_repair_pause_and_speed_up(mill: Simulation, wait_until: Callable[..., Any]) -> None:
    done = mill.control("inject", "cnc-07", "tool_wear", severity=0.5)
    assert done["severity"] == 0.5
    wait_until(lambda: mill.control("status")["machines"][0]["faults"] == ["tool_wear"], what="it is in force")
    with pytest.raises(ControlError, match="two faults `tool_wear` overlap"):
        mill.control("inject", "cnc-07", "tool_wear")
    assert mill.control("repair", "cnc-07")["ended"] == ["tool_wear"]
    wait_until(lambda: mill.control("status")["machines"][0]["faults"] == [], what="it is repaired")
    wait_until(lambda: mill.truth().faults and mill.truth().faults[0].end, what="the truth says so")
    assert mill.truth().faults[0].first_part == done["first_part"]
    with pytest.raises(ControlError, match="no machine `cnc-08`; did you mean `cnc-07`"):
        mill.control("repair", "cnc-08")
    with pytest.raises(ControlError, match="has no fault `rust`; it has tool_wear"):
        mill.control("inject", "cnc-07", "rust")
    with pytest.raises(ControlError, match="above 0"):
        mill.control("speed", 0.0)
    mill.control("pause")
    status = mill.control("status")
    assert status["paused"]
    assert mill.control("status")["seconds"] == status["seconds"]
    mill.control("speed", 20.0)
    mill.control("resume")
    mill.wait_for_parts(status["machines"][0]["parts"] + 5)
    assert mill.control("status")["speed"] == 20.0


def ask(url: str, body: Any = None, **fields: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **fields})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.load(e)


def test_the_same_over_http_and_for_no_page_in_a_browser() -> None:
    async def go() -> None:
        with TruthWriter(None) as truth:
            async with (
                Runner(load("single-mill"), truth) as runner,
                ControlServer(Control(runner)) as server,
            ):
                end = asyncio.Event()
                producing = asyncio.create_task(runner.produce(speed=10, end=end))
                await asyncio.sleep(0)  # it begins

                async def call(path: str, body: Any = None, **fields: str) -> tuple[int, Any]:
                    return await asyncio.to_thread(ask, server.url + path, body, **fields)

                status, found = await call("/status")
                assert (status, found["machines"][0]["name"]) == (200, "cnc-07")
                broken = {"machine": "cnc-07", "kind": "tool_wear", "parts": 3}
                status, found = await call("/inject", broken)
                assert (status, found["kind"]) == (200, "tool_wear")
                assert (await call("/inject", broken))[0] == 409
                assert await call("/pause", {}) == (200, {})
                assert (await call("/status"))[1]["paused"]
                assert await call("/resume", {}) == (200, {})
                assert await call("/speed", {"speed": 2.0}) == (200, {})
                assert runner.pace.speed == 2.0
                assert (await call("/repair", {"machine": "cnc-07"}))[0] == 200
                status, found = await call("/inject", {"machin": "cnc-07"})
                assert (status, found["error"][:6]) == (400, "Object")
                assert (await call("/nowhere", {}))[0] == 404
                assert (await call("/pause", {}, **{"Content-Type": "text/plain"}))[0] == 415
                assert (await call("/status", Host="machines.example:80"))[0] == 403
                reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
                writer.write(b"nonsense\r\n\r\n")
                assert b" 400 " in await reader.readline()
                writer.close()
                end.set()
                await producing

    asyncio.run(go())


def test_keys_and_the_screen(mill: Simulation) -> None:
    screen = Screen(mill._control, "One mill", io.StringIO())

    async def press(keys: str) -> list[bool]:
        return [screen.press(key) for key in keys]

    def pressed(keys: str) -> list[bool]:
        return asyncio.run_coroutine_threadsafe(press(keys), mill._loop).result(10)

    def shown(rows: int = 24) -> str:
        async def frame() -> list[str]:
            return screen.frame(100, rows)

        lines = asyncio.run_coroutine_threadsafe(frame(), mill._loop).result(10)
        assert len(lines) <= rows
        assert all(len(line) <= 100 for line in lines)
        return "\n".join(lines)

    assert "cnc-07" in shown()
    assert "1 tool_wear" in shown()
    assert pressed("jk9 ") == [True] * 4
    assert mill.control("status")["paused"]
    assert "paused" in shown(5)
    speed = mill.control("status")["speed"]
    assert pressed(" +") == [True] * 2
    assert mill.control("status")["speed"] == 2 * speed
    assert pressed("-1") == [True] * 2
    assert "tool_wear from cnc-07-" in shown()
    assert pressed("r") == [True]
    assert "cnc-07: tool_wear" in shown()
    assert pressed("q\r") == [False, False]


def test_a_terminal_shows_it_live_and_enter_ends_it(wait_until: Callable[..., Any]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fieldlab.cli", "simulate", "single-mill", "--speed", "5"],
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def shows(what: bytes) -> bool:
        nonlocal seen
        seen += os.read(ours, 4096)
        return what in seen

    try:
        wait_until(lambda: shows(b"> cnc-07"), 60, what="the machines are shown")
        os.write(ours, b"\n")
        wait_until(lambda: shows(b"finished: "), 30, what="production ends")
        assert b"\x1b[?1049l" in seen, "the terminal is as it was"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
