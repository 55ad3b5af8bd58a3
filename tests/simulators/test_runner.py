"""The runner: machines keep their own pace, and stopping works whatever the broker does."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulators.protocols.mqtt_device import MqttError
from simulators.runner import Access, Runner
from simulators.scenarios import load, machines
from simulators.truth import TruthWriter, read_truth

START = 1_763_900_000_000_000_000
MILL_AND_PRINTER = """
title = "a mill that must not wait for a printer"
sample_period = 0.01
cycle_time = 0.1
duration = 1000.0
[[machine]]
name = "cnc-07"
kind = "cnc_mill"
[[machine]]
name = "printer-02"
kind = "printer"
"""


def test_a_dead_broker_stops_neither_the_other_machines_nor_the_end(
    mosquitto: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    broker = mosquitto()
    (tmp_path / "two.toml").write_text(MILL_AND_PRINTER)
    path = tmp_path / "truth.jsonl"

    def parts(machine: str) -> int:
        return path.read_bytes().count(f'"type":"part","place":"drachten/shavers/3/{machine}"'.encode())

    async def go() -> tuple[bool, int]:
        stop = asyncio.Event()
        access = Access(url=broker.url, user=broker.user, password=broker.password)
        with TruthWriter(path) as truth:
            async with Runner(load(str(tmp_path / "two.toml")), truth, mqtt=access) as runner:
                producing = asyncio.create_task(runner.produce(speed=5, stop=stop))
                await asyncio.to_thread(wait_until, lambda: parts("printer-02") >= 5)
                await asyncio.to_thread(broker.kill)
                before = parts("cnc-07")
                await asyncio.to_thread(wait_until, lambda: parts("cnc-07") >= before + 40)
                stop.set()
                async with asyncio.timeout(15):
                    return await producing

    complete, missing = asyncio.run(go())
    assert not complete
    assert missing == 1000, "the bound on what is in flight, and it is told"
    assert {p.place.rpartition("/")[2] for p in read_truth(path).parts} == {"cnc-07", "printer-02"}


def test_machines_that_need_a_broker_say_so() -> None:
    async def go() -> None:
        with TruthWriter(None) as truth:
            async with Runner(load("hall"), truth):
                pass

    with pytest.raises(MqttError, match="drachten/shavers/3/printer-02 speaks MQTT, and there is no broker"):
        asyncio.run(go())


def test_paced_time_is_not_faster_than_asked(tmp_path: Path) -> None:
    async def go() -> float:
        loop = asyncio.get_running_loop()
        with TruthWriter(None) as truth:
            async with Runner(load("single-mill", duration=20.0), truth) as runner:
                begin = loop.time()
                assert await runner.produce(speed=20) == (True, 0)
                return loop.time() - begin

    assert asyncio.run(go()) >= 1.0


TROUBLED = """
title = "what must not depend on the speed"
sample_period = 0.05
cycle_time = 0.4
duration = 8.0
[context]
lot_parts = 5
[[machine]]
name = "stamp-1"
kind = "shaver_stamp"
[[machine.fault]]
kind = "punch_wear"
start_part = 5
[[machine]]
name = "form-1"
kind = "shaver_form"
upstream = "stamp-1"
[[machine]]
name = "agv-1"
kind = "agv"
[[machine]]
name = "fill-1"
kind = "filling_cell"
[[machine]]
name = "milk-1"
kind = "milking_robot"
copies = 2
[[habit]]
kind = "late"
[[habit]]
kind = "bad_storm"
machine = "m*"
start_seconds = 2.0
[[habit]]
kind = "duplicates"
machine = "milk-*"
[[habit]]
kind = "namespace_order"
start_fraction = 0.5
"""


def test_the_truth_is_the_same_bit_for_bit_whatever_the_speed(mosquitto: Callable[..., Any], tmp_path: Path) -> None:
    broker = mosquitto()
    (tmp_path / "all.toml").write_text(TROUBLED)

    async def go(speed: float, seed: int, *, digest: bool = False) -> tuple[int, int, int, list[Any]]:
        path = tmp_path / "truth.jsonl"
        access = Access(url=broker.url, user=broker.user, password=broker.password)
        with TruthWriter(path, digest=digest) as truth:
            async with Runner(load(str(tmp_path / "all.toml"), seed=seed), truth, mqtt=access) as runner:
                assert await runner.produce(speed=speed, start=START) == (True, 0)
        known = read_truth(path)
        assert sum(d.count for d in known.digests) == (truth.readings if digest else 0)
        assert len(known.readings) == (0 if digest else truth.readings)
        assert [h.kind for h in known.habits] == ["late", "bad_storm", "duplicates", "namespace_order"]
        return truth.hash, truth.readings, truth.copies, sorted(map(repr, [*known.parts, *known.faults]))

    slow = asyncio.run(go(8.0, 3))
    assert slow[1] > 3000
    assert slow[2] > 100
    assert asyncio.run(go(float("inf"), 3, digest=True)) == slow


def test_a_fleet_of_devices_needs_no_thread_for_each(mosquitto: Callable[..., Any], tmp_path: Path) -> None:
    broker = mosquitto()
    (tmp_path / "many.toml").write_text(
        'title = "many"\nduration = 4.0\nsample_period = 0.25\ncycle_time = 1.0\n'
        '[[machine]]\nname = "bay"\nkind = "greenhouse"\ncopies = 120\n'
    )
    path = tmp_path / "truth.jsonl"

    async def go() -> None:
        access = Access(url=broker.url, user=broker.user, password=broker.password)
        before = threading.active_count()
        with TruthWriter(path) as truth:
            async with Runner(load(str(tmp_path / "many.toml")), truth, mqtt=access) as runner:
                producing = asyncio.create_task(runner.produce(speed=4, start=START))
                await asyncio.sleep(0)
                assert threading.active_count() - before < 5
                assert await producing == (True, 0)

    asyncio.run(go())
    known = read_truth(path)
    assert len(known.parts) == 480
    assert len({r.place for r in known.readings}) == 120
    expected = [r for m in machines(load(str(tmp_path / "many.toml")), START) for r in m.step(2**62).readings]
    assert sorted((r.ts, r.value) for r in expected if r.signal == "co2") == sorted(
        (r.ts, r.value) for r in known.readings if r.signal == "co2"
    )
