"""A client that we did not write reads the simulators: node-opcua, encrypted."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

from simulators.machines import MACHINES, Reading
from simulators.protocols.opcua_server import OpcUaServer

NS = 1_763_900_000_123_456_000
HERE = Path(__file__).parent


def test_node_opcua_reads_the_server_encrypted(node_opcua: Path, tmp_path: Path) -> None:
    async def go() -> bytes:
        async with OpcUaServer({"cnc-07": MACHINES["cnc_mill"].SIGNALS}) as server:
            await server.write("cnc-07", [Reading("diameter", NS, 25.0015), Reading("tool_id", NS, "T01")])
            command = ["node", str(HERE / "reader.js"), server.url, str(tmp_path / "pki"), "cnc-07"]
            reader = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, "NODE_PATH": str(node_opcua), "HOME": str(tmp_path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, errors = await asyncio.wait_for(reader.communicate(), 60)
            assert reader.returncode == 0, errors.decode()
            return out

    found = json.loads(asyncio.run(go()).splitlines()[-1])
    signals = {s["name"]: s for s in found["signals"]}
    assert set(signals) == {s.name for s in MACHINES["cnc_mill"].SIGNALS}
    assert signals["diameter"]["node"].endswith(";s=cnc-07.diameter")
    assert (signals["diameter"]["value"], signals["diameter"]["status"]) == (25.0015, 0)
    assert signals["diameter"]["source"] == "2025-11-23T12:13:20.123Z"
    assert signals["tool_id"]["value"] == "T01"
    assert (signals["vibration"]["value"], signals["vibration"]["status"]) == (None, 0x80320000)
    assert found["write"] in ("BadUserAccessDenied", "BadNotWritable")
    assert found["unit"] == "mm"
