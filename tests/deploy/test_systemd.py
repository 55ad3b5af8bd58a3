"""systemd's own opinion of the unit, and the agent under the kernel's refusal of code that writes itself."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "fieldlab-agent@.service"
MOST_EXPOSURE = 2.0

# What MemoryDenyWriteExecute= asks of the kernel: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN)
REFUSE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(99)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def analyze(require: Callable[[str, str], str]) -> str:
    return require("systemd-analyze", "systemd")


def test_the_unit_is_hardened(analyze: str) -> None:
    command = [analyze, "security", "--offline=true", "--no-pager", str(UNIT)]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSURE, said


def test_systemd_understands_every_line(analyze: str, tmp_path: Path) -> None:
    """`verify` wants to find the program: it gets one."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/fieldlab/current/bin/fieldlab", sys.executable), "utf-8")
    command = [analyze, "verify", "--man=no", str(unit)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    ours = [line for line in ended.stderr.splitlines() if UNIT.stem in line]
    assert ours == []


@pytest.mark.parametrize("kind", ["embedded", "influxdb"])
def test_an_agent_needs_no_memory_that_is_written_and_run(
    kind: str, tmp_path: Path, wait_until: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    store = '[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:1"\nbucket = "b"\napi = "v1"\n'
    (tmp_path / "fieldlab.toml").write_text(
        f'[agent]\nname = "a"\ndata = "data"\nhttp = "127.0.0.1:{port}"\n'
        f"{store if kind == 'influxdb' else ''}"
        f'[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:1"\ntopics = ["fieldlab/+/+/+/+/+"]\n'
        f'[[source]]\nkind = "opcua"\nmachine = "m"\nurl = "opc.tcp://127.0.0.1:1"\n'
        f'[[source.signal]]\nname = "s"\nnode = "i=2258"\n'
        '[place]\nsite = "s"\narea = "a"\nline = "l"\n'
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        agent = subprocess.Popen(
            [sys.executable, "-c", REFUSE, "-m", "fieldlab.cli", "agent", str(tmp_path / "fieldlab.toml")],
            stdout=out,
            stderr=out,
        )
    try:
        if (
            wait_until(
                lambda: agent.poll() or b"opcua_unreachable" in log.read_bytes(), 60.0, "it looks for its server"
            )
            == 99
        ):
            pytest.skip("this kernel cannot refuse: Linux 6.3 can")
        agent.terminate()
        assert agent.wait(30) == 0, log.read_text()
    finally:
        agent.kill()
        agent.wait()
