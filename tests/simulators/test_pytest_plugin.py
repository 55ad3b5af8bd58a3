"""The fixtures, used by a test in a package outside."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

OUTSIDE = """
import asyncio
import pytest
from asyncua import Client


def test_a_mill_in_one_line(simulated_machines):
    mill = simulated_machines("cnc_mill", speed=20)
    mill.wait_for_parts(3)
    done = mill.control("inject", "cnc_mill-1", "tool_wear", severity=2.0)
    first = int(done["first_part"][-6:])
    assert 4 <= first
    mill.wait_for_parts(first + 20)
    bad = [int(p.id[-6:]) for p in mill.truth().parts if not p.good]
    assert bad and min(bad) >= first
    assert [f.first_part for f in mill.truth().faults] == [done["first_part"]]

    async def read():
        async with Client(mill.opcua_url) as client:
            index = await client.get_namespace_index("urn:fieldlab:sim")
            return await client.get_node(f"ns={index};s=cnc_mill-1.diameter").read_value()

    assert asyncio.run(read()) > 25.0
    mill.control("pause")
    made = mill.control("status")["machines"][0]["parts"]
    with pytest.raises(TimeoutError):
        mill.wait_for_parts(made + 3, timeout=0.5)


def test_a_scenario_by_name(simulated_machines):
    hall = simulated_machines("filling", speed=10)
    assert hall.mqtt.url.startswith("mqtt://")
    hall.wait_for_parts(2)
    assert {r.signal for r in hall.truth().readings} >= {"fill_weight", "part_id"}
"""


def test_a_package_outside_has_running_machines_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "test_outside.py").write_text(OUTSIDE)
    installed = any(e.value == "simulators.pytest_plugin" for e in metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "simulators.pytest_plugin"]  # an editable install learns of it when renewed
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "-W", "ignore", "test_outside.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_wheel_names_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"fieldlab-simulators": "simulators.pytest_plugin"}
